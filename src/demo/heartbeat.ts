import { systemClock } from '../clock.ts'
import { runHeartbeat } from '../protect/postgres/heartbeat.ts'
import { heartbeatSetup } from '../protect/postgres/heartbeat-setup.ts'
import { streamSchema } from '../protect/postgres/component.ts'
import { Secret } from '../secret.ts'
import { COMPONENT, resusConnection, useServer, type HospitalServer } from './hospital-server.ts'

/** Beats once a second, as `resus serve` does, through the disaster too: what a copy has of it says how much it lost. */
export async function startHeartbeat(server: HospitalServer): Promise<AsyncDisposable> {
  await useServer(server, async (client) => {
    await client.query(heartbeatSetup('resus'))
  })
  const ending = new AbortController()
  const component = { name: COMPONENT, connection: new Secret(resusConnection(server)), stream: streamSchema.parse({}) }
  const beating = runHeartbeat({
    component,
    clock: systemClock,
    signal: ending.signal,
    onBeat: () => undefined,
    // While the server is away there is nothing to beat on.
    onTrouble: () => undefined,
  })
  return {
    [Symbol.asyncDispose]: async () => {
      ending.abort()
      await beating
    },
  }
}
