import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { NodeReach } from '../catalog/schema.ts'
import type { ComponentConfiguration, Configuration } from '../config/configuration.ts'
import { resolveComponent } from '../config/open.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { parseControlFile } from '../postgres/control-file.ts'
import type { PostgresComponent } from '../protect/postgres/component.ts'
import { ServerSession } from '../protect/postgres/server-session.ts'

const IDENTITY_HOLDS_MS = 60_000
const SILENCE_HOLDS_MS = 20_000
const IDENTIFIER = 'select system_identifier::text as identifier from pg_control_system()'

/** Which components this node can work on, with the reason for those that it cannot. */
export async function findReach(systems: readonly Configuration[], servers: ServerIdentities): Promise<NodeReach[]> {
  const all = systems.flatMap((configuration) => configuration.components.map((component) => ({ configuration, component })))
  return await Promise.all(
    all.map(async ({ configuration, component }) => {
      const { why, receivable } = await lookAt(component, servers)
      return { system: configuration.system, component: component.name, reached: why === null, receivable, why }
    }),
  )
}

/** A backup reads the data directory: it has to be here, and be the one that the connection leads to. Receiving takes the server alone. */
async function lookAt(
  component: ComponentConfiguration,
  servers: ServerIdentities,
): Promise<{ readonly why: string | null; readonly receivable: boolean }> {
  const [here, there] = await Promise.all([identifierIn(component.dataDirectory), servers.of(component)])
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

/** Which cluster a connection leads to, remembered for a while: a connection every few seconds for each component would be a load of its own. */
export class ServerIdentities {
  readonly #known = new Map<string, { readonly identifier: string | undefined; readonly atMs: number }>()

  /** Undefined when the server does not say. */
  async of(component: ComponentConfiguration): Promise<string | undefined> {
    // A server that is down is still ours to look after: the commands say what is wrong with it.
    const resolved = await resolveComponent(component).catch(undefinedIfFailure)
    if (resolved === undefined) return undefined
    const key = resolved.connection.reveal().toString('utf8')
    const known = this.#known.get(key)
    if (known !== undefined && performance.now() - known.atMs < holdsMs(known.identifier)) return known.identifier
    const identifier = await askIdentifier(resolved).catch(undefinedIfFailure)
    this.#known.set(key, { identifier, atMs: performance.now() })
    return identifier
  }
}

function holdsMs(identifier: string | undefined): number {
  return identifier === undefined ? SILENCE_HOLDS_MS : IDENTITY_HOLDS_MS
}

async function askIdentifier(component: PostgresComponent): Promise<string | undefined> {
  await using session = await ServerSession.connect(component)
  const [row] = await session.query<{ identifier: string }>(IDENTIFIER, [])
  return row?.identifier
}

function undefinedIfFailure(error: unknown): undefined {
  if (!(error instanceof Failure)) throw error
  return undefined
}
