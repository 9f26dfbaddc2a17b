import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

/** Stands between a client and a server; when it is told to, it keeps both connections and passes nothing on any more. */
export interface SilentProxy {
  readonly port: number
  silence(): void
}

export async function silentProxy(t: TestContext, serverPort: number): Promise<SilentProxy> {
  const sockets = new Set<Socket>()
  let silent = false
  const pass = (from: Socket, to: Socket) => {
    sockets.add(from)
    from.on('data', (bytes) => {
      if (!silent) to.write(bytes)
    })
    from.on('error', () => undefined)
    from.on('close', () => {
      if (!silent) to.destroy()
    })
  }
  const server = createServer((client) => {
    const upstream = connect(serverPort, '127.0.0.1')
    pass(client, upstream)
    pass(upstream, client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, silence: () => (silent = true) }
}
