import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { NodeReach } from '../catalog/schema.ts'
import type { ComponentConfiguration, Configuration } from '../config/configuration.ts'
import { resolveComponent } from '../config/open.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { parseControlFile } from '../postgres/control-file.ts'
import { ServerSession } from '../protect/postgres/server-session.ts'

/** Which components this node can work on, with the reason for those that it cannot. */
export async function findReach(systems: readonly Configuration[]): Promise<NodeReach[]> {
  const all = systems.flatMap((configuration) => configuration.components.map((component) => ({ configuration, component })))
  return await Promise.all(
    all.map(async ({ configuration, component }) => {
      const { why, receivable } = await lookAt(component)
      return { system: configuration.system, component: component.name, reached: why === null, receivable, why }
    }),
  )
}

/** A backup reads the data directory: it has to be here, and be the one that the connection leads to. Receiving takes the server alone. */
async function lookAt(component: ComponentConfiguration): Promise<{ readonly why: string | null; readonly receivable: boolean }> {
  const [here, there] = await Promise.all([identifierIn(component.dataDirectory), identifierOfServer(component)])
  // The server of a directory that is here is down for a while, and not somebody else's to look after.
  if (typeof here === 'string') return { why: here, receivable: there !== undefined }
  if (there === undefined || there === here.identifier) return { why: null, receivable: true }
  const why = `"${component.dataDirectory}" is of the cluster ${here.identifier}, and the connection leads to ${there}`
  return { why, receivable: true }
}

async function identifierIn(directory: string): Promise<{ readonly identifier: string } | string> {
  try {
    const control = parseControlFile(await readFile(join(directory, 'global/pg_control')))
    return { identifier: String(control.systemIdentifier) }
  } catch (error) {
    const code = systemErrorCode(error)
    if (error instanceof Failure) return error.message
    if (code === undefined) throw error
    return code === 'ENOENT'
      ? `there is no cluster in "${directory}" on this host`
      : `"${directory}" cannot be read on this host: ${code}`
  }
}

/** Undefined when the server does not say. */
async function identifierOfServer(component: ComponentConfiguration): Promise<string | undefined> {
  try {
    await using session = await ServerSession.connect(await resolveComponent(component))
    const [row] = await session.query<{ identifier: string }>(
      'select system_identifier::text as identifier from pg_control_system()',
      [],
    )
    return row?.identifier
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    // A server that is down is still ours to look after: the commands say what is wrong with it.
    return undefined
  }
}
