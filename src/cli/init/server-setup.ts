import { Failure } from '../../errors.ts'
import { connectionProblem } from '../../config/configuration.ts'
import { parseSecretReference, resolveSecret } from '../../config/secret-reference.ts'
import { readLocalServer } from '../../postgres/local-servers.ts'
import { readConnectionString, type ConnectionParts } from '../../postgres/connection-string.ts'
import { ReplicationConnection } from '../../postgres/replication.ts'
import { assertSettable, inspectSetup, passwordStep, planSetup, runSetupStep } from '../../protect/postgres/setup.ts'
import type { SetupPlan, SetupState, SetupStep, SetupWanted } from '../../protect/postgres/setup.ts'
import { isWrongPassword, SetupSession } from '../../protect/postgres/setup-session.ts'
import { Secret } from '../../secret.ts'
import { nameOf, ownerOf } from './account.ts'
import type { Dialogue } from './dialogue.ts'
import { proposeSlotLimit } from './disks.ts'
import type { InitOptions } from './options.ts'

/** A server that is to be set up, and how Resus will connect to it. */
export interface SetupTarget {
  readonly component: string
  readonly dataDirectory: string
  readonly slot: string
  readonly connection: Secret
  /** Where the connection string is kept, or will be, for messages. */
  readonly connectionPlace: string
  /** Whether nobody else has it: its password was made just now. */
  readonly isNew: boolean
}

export interface ServerPlan extends SetupPlan {
  readonly target: SetupTarget
  readonly role: string
}

interface Planning {
  readonly dialogue: Dialogue
  readonly options: InitOptions
}

/** Looks at what the server has. Changes nothing. Throws LOGIN_REFUSED, POSTGRES_UNREACHABLE, SERVER_SETTING, ARGUMENTS_INVALID. */
export async function planServer(target: SetupTarget, { dialogue, options }: Planning): Promise<ServerPlan> {
  const { user: role, password } = parts(target)
  const wanted = { role, slot: target.slot, slotWalKeep: await proposeSlotLimit(target.dataDirectory) }
  const { state, wrongPassword } = await inspect(target, wanted, options)
  const plan = planSetup(state, wanted)
  const known = !target.isNew && !wrongPassword
  // Before anything is made: a role that is to be given its password, here or below, can be given it.
  if (!options.sqlOnly && (state.role === null || !known)) assertSettable(password)
  if (state.role === null || known) return { ...plan, target, role }
  if (options.sqlOnly) {
    const notice = `the role "${role}" is there, and its password is not the one in "${target.connectionPlace}": put its connection string there`
    return { ...plan, notices: [...plan.notices, notice], target, role }
  }
  const text = `The role "${role}" is there, and its password is not the one in "${target.connectionPlace}". Give it a new password?`
  const given = options.newPassword ? true : undefined
  const agreed = await dialogue.confirm({ text, flag: '--new-password', proposal: false, given })
  if (agreed) return { ...plan, missing: [passwordStep(wanted), ...plan.missing], target, role }
  throw new Failure('ARGUMENTS_INVALID', `the role "${role}" is there already, and its password is not known`, {
    hint: `put its connection string, "postgres://${role}:<password>@host:port/database", into "${target.connectionPlace}" (mode 0600); or add --new-password`,
  })
}

/** What people read before they say yes. */
export function describePlan({ target, there, missing, notices }: ServerPlan): string {
  const sql = missing.map(({ what, statements }) => `-- ${what}\n${statements.join('\n')}`)
  return [
    ...there.map((what) => `there already: ${what}`),
    ...notices.map((notice) => `NOTE: ${notice}`),
    ...(missing.length === 0
      ? [`the server of "${target.component}" has all that is needed`]
      : [`SQL for the server of "${target.component}", by a superuser in database "${parts(target).database}":`, '', ...sql, '']),
  ].join('\n')
}

/** Does what is missing, one step after the other, each told when it is done. */
export async function runServerPlan(plan: ServerPlan, options: InitOptions, onDone: (step: SetupStep) => void): Promise<void> {
  if (plan.missing.length === 0) return
  const { password } = parts(plan.target)
  await using session = await connectSuperuser(plan.target, options)
  for (const step of plan.missing) {
    await runSetupStep(session, step, password)
    onDone(step)
  }
}

/** Proves that Resus is let in, in both ways. Throws LOGIN_REFUSED with the lines that pg_hba.conf lacks. */
export async function assertLetIn({ target, role }: Pick<ServerPlan, 'target' | 'role'>, signal: AbortSignal): Promise<void> {
  const hint = `pg_hba.conf needs these lines, and then "select pg_reload_conf()":
  host all         ${role} 127.0.0.1/32 scram-sha-256
  host replication ${role} 127.0.0.1/32 scram-sha-256`
  const connectionString = target.connection.reveal().toString('utf8')
  try {
    await using _session = await SetupSession.connect(target.connection)
    await using _stream = await ReplicationConnection.connect({ connectionString, applicationName: 'resus init', signal })
  } catch (cause) {
    if (!(cause instanceof Failure) || cause === signal.reason) throw cause
    throw new Failure('LOGIN_REFUSED', `"${role}" cannot connect to the server of "${target.component}": ${cause.message}`, {
      hint,
      cause,
    })
  }
}

/** As Resus itself where that will do, else as a superuser. */
async function inspect(
  target: SetupTarget,
  wanted: SetupWanted,
  options: InitOptions,
): Promise<{ state: SetupState; wrongPassword: boolean }> {
  let refused: unknown
  if (!target.isNew) {
    try {
      await using session = await SetupSession.connect(target.connection)
      return { state: await inspectSetup(session, wanted), wrongPassword: false }
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== 'LOGIN_REFUSED') throw error
      refused = error
    }
  }
  await using session = await connectSuperuser(target, options)
  return { state: await inspectSetup(session, wanted), wrongPassword: isWrongPassword(refused) }
}

/** As the command line says; else through the server's socket, which lets its own account in. Throws LOGIN_REFUSED. */
async function connectSuperuser(target: SetupTarget, { superuserConnection }: InitOptions): Promise<SetupSession> {
  const { database } = parts(target)
  if (superuserConnection !== undefined) return await SetupSession.connect(await namedConnection(superuserConnection))
  const server = await readLocalServer(target.dataDirectory)
  const hint =
    'name how a superuser connects: --superuser-connection file:/path (or env:NAME), or run the SQL yourself: --sql-only'
  if (server?.socketDirectory === undefined) {
    throw new Failure('POSTGRES_UNREACHABLE', `the server of "${target.component}" does not run, or has no socket on this host`, {
      hint,
    })
  }
  const own = nameOf(await ownerOf(target.dataDirectory))
  const reasons: string[] = []
  for (const user of new Set([own, 'postgres'])) {
    const query = `host=${encodeURIComponent(server.socketDirectory)}&port=${server.port}`
    const text = `postgres://${encodeURIComponent(user)}@/${encodeURIComponent(database)}?${query}`
    try {
      return await SetupSession.connect(new Secret(text))
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      reasons.push(error.message)
    }
  }
  throw new Failure('LOGIN_REFUSED', `no superuser comes to the server of "${target.component}": ${reasons.join('; ')}`, { hint })
}

async function namedConnection(text: string): Promise<Secret> {
  const reference = parseSecretReference(text, process.cwd())
  const what = 'the connection string of the superuser'
  const secret = reference === undefined ? new Secret(text) : await resolveSecret(reference, what)
  const problem = connectionProblem(secret.reveal().toString('utf8'), { passwordAllowed: reference !== undefined })
  if (problem === undefined) {
    readConnectionString(secret, what)
    return secret
  }
  throw new Failure('ARGUMENTS_INVALID', `--superuser-connection: ${problem}`, {
    hint: 'file:/path or env:NAME of "postgres://postgres:<password>@host:port/database"; arguments are read by others, and in no place for a password',
  })
}

function parts({ connection, component }: SetupTarget): ConnectionParts {
  return readConnectionString(connection, `the connection string of "${component}"`)
}
