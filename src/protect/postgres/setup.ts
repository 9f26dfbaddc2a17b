import pg from 'pg'
import { z } from 'zod'
import { Failure } from '../../errors.ts'
import { assertPlainPassword, scramVerifier } from '../../postgres/scram.ts'
import type { Secret } from '../../secret.ts'
import { heartbeatSetup, STRANGE_OWNER_HINT, strangeOwners } from './heartbeat-setup.ts'
import type { SetupSession } from './setup-session.ts'

// What a server has to have for Resus: looked at first, shown as SQL, and only what is missing is made. Doing it twice changes nothing.

const OLDEST_MAJOR = 15

export interface SetupWanted {
  readonly role: string
  readonly slot: string
  /** What `max_slot_wal_keep_size` is set to where it has no limit: `20GB`. */
  readonly slotWalKeep: string
}

const roleSchema = z.object({
  login: z.boolean(),
  replication: z.boolean(),
  superuser: z.boolean(),
  monitor: z.boolean(),
  backup: z.boolean(),
  heartbeat: z.boolean(),
})

const stateSchema = z.object({
  inRecovery: z.boolean(),
  major: z.number(),
  database: z.string(),
  walLevel: z.string(),
  walSendersMax: z.number(),
  slotsMax: z.number(),
  slotsUsed: z.number(),
  slotWalKeep: z.string(),
  /** The slot that is furthest behind, when the limit that is wanted would leave it too little. */
  behind: z.object({ slot: z.string(), retained: z.string() }).nullable(),
  publishesAllTables: z.boolean(),
  heartbeat: z.boolean(),
  /** What of the heartbeat is somebody else's. */
  strange: z.array(z.object({ object: z.string(), owner: z.string() })),
  role: roleSchema.nullable(),
  slot: z.enum(['physical', 'logical']).nullable(),
})
/** What there is. */
export type SetupState = z.infer<typeof stateSchema>

export type SetupPart = 'role' | 'rights' | 'limit' | 'heartbeat' | 'slot'

/** One part that is missing. Its statements are fit to be shown: they have no secret in them. */
export interface SetupStep {
  readonly part: SetupPart
  readonly what: string
  readonly statements: readonly string[]
}

export interface SetupPlan {
  readonly missing: readonly SetupStep[]
  /** For people: what is there already. */
  readonly there: readonly string[]
  /** For people: what is not made, and why. */
  readonly notices: readonly string[]
}

/** Any role may look. Throws SERVER_SETTING, SERVER_TOO_OLD for what no SQL of ours can mend. */
export async function inspectSetup(session: SetupSession, wanted: SetupWanted): Promise<SetupState> {
  const values = [wanted.role, wanted.slot, wanted.slotWalKeep]
  const [row] = await session.query<{ state: unknown }>(STATE, values)
  const state = stateSchema.parse(row?.state)
  const { major } = state
  if (major < OLDEST_MAJOR) throw new Failure('SERVER_TOO_OLD', `the server is PostgreSQL ${major}, Resus needs 15 to 18`)
  const problems = [
    ...(state.inRecovery ? ['it is a standby, which takes no writes: set up its primary'] : []),
    ...(state.walLevel === 'minimal' ? ['wal_level is minimal, wanted replica: it takes a restart of the server'] : []),
    ...(state.walSendersMax < 2 ? [`max_wal_senders is ${state.walSendersMax}, wanted 2 at least: it takes a restart`] : []),
    ...(state.slot === null && state.slotsUsed + 2 > state.slotsMax
      ? [`${state.slotsUsed} of ${state.slotsMax} replication slots are taken, and we need two (max_replication_slots)`]
      : []),
    ...(state.slot === 'logical' ? [`the replication slot "${wanted.slot}" is a logical one: name another slot`] : []),
    ...state.strange.map(
      ({ object, owner }) =>
        `the ${object} in database "${state.database}" belongs to the role "${owner}", and its code would run with our rights: ${STRANGE_OWNER_HINT}`,
    ),
  ]
  if (problems.length === 0) return state
  throw new Failure('SERVER_SETTING', `the server is not ready to be protected: ${problems.join('; ')}`, {
    hint: 'nothing was changed; correct that, and run it again',
  })
}

/** What has to be done, in the order in which it is done. */
export function planSetup(state: SetupState, wanted: SetupWanted): SetupPlan {
  const role = pg.escapeIdentifier(wanted.role)
  const missing: SetupStep[] = []
  const there: string[] = []
  const notices: string[] = []
  const part = (name: SetupPart, what: string, sql: readonly string[]) => {
    if (sql.length === 0) there.push(what)
    else missing.push({ part: name, what, statements: sql })
  }
  part('role', `role "${wanted.role}"`, roleSql(state, role))
  part('rights', `rights of "${wanted.role}"`, rightsSql(state, role))
  const limited = state.slotWalKeep !== '-1'
  const limit = [`alter system set max_slot_wal_keep_size = ${pg.escapeLiteral(wanted.slotWalKeep)};`, 'select pg_reload_conf();']
  const limitWhat = limited ? `limit of WAL kept for slots (${state.slotWalKeep})` : 'limit of WAL kept for slots'
  if (!limited && state.behind !== null) {
    const { slot, retained } = state.behind
    notices.push(
      `max_slot_wal_keep_size has no limit, and ${wanted.slotWalKeep} is not set: the server keeps ${retained} for the slot "${slot}", which would be lost at the next checkpoint, or soon. Let what reads from it catch up, or drop it, and then: ${limit.join(' ')}`,
    )
  } else part('limit', limitWhat, limited ? [] : limit)
  const beating = state.heartbeat && (state.role?.heartbeat === true || state.role?.superuser === true)
  if (!state.heartbeat && state.publishesAllTables) {
    notices.push(
      `no heartbeat in database "${state.database}": it publishes all its tables, and subscribers would stop at a new one. The RPO stays not proven; name another database of the cluster in "connection"`,
    )
  } else part('heartbeat', 'heartbeat', beating ? [] : [heartbeatSetup(wanted.role).trimEnd()])
  const slotSql = `select pg_create_physical_replication_slot(${pg.escapeLiteral(wanted.slot)}, true);`
  part('slot', `replication slot "${wanted.slot}"`, state.slot === null ? [slotSql] : [])
  return { missing, there, notices }
}

/** The step that gives a role that is there another password. */
export function passwordStep(wanted: SetupWanted): SetupStep {
  const statements = [`alter role ${pg.escapeIdentifier(wanted.role)} password ${PLACEHOLDER};`]
  return { part: 'role', what: `password of "${wanted.role}"`, statements }
}

/** Does one step. The password goes to the server as a SCRAM verifier only. Throws POSTGRES_FAILED, ARGUMENTS_INVALID. */
export async function runSetupStep(session: SetupSession, step: SetupStep, password: Secret | undefined): Promise<void> {
  // One at a time: ALTER SYSTEM refuses to be one of several.
  for (const statement of step.statements) {
    const sql = statement.includes(PLACEHOLDER) ? await withVerifier(statement, password) : statement
    await session.run(sql, step.what)
  }
}

async function withVerifier(statement: string, password: Secret | undefined): Promise<string> {
  const verifier = await scramVerifier(assertSettable(password))
  return statement.replace(PLACEHOLDER, () => pg.escapeLiteral(verifier))
}

/** The password, where a role can be given it. Throws ARGUMENTS_INVALID. */
export function assertSettable(password: Secret | undefined): Secret {
  if (password === undefined) {
    throw new Failure('ARGUMENTS_INVALID', 'the role has to be given a password, and the connection string has none', {
      hint: 'write one into it, "postgres://role:password@host:port/database"; or, for a role that comes in without one (peer, .pgpass), run the SQL of "resus init --sql-only" yourself',
    })
  }
  assertPlainPassword(password)
  return password
}

/** Stands for the verifier in what is shown. */
const PLACEHOLDER = `'…'`

function roleSql({ role: found }: SetupState, role: string): string[] {
  if (found === null) return [`create role ${role} login replication password ${PLACEHOLDER};`]
  const lacking = [...(found.login ? [] : ['login']), ...(found.replication || found.superuser ? [] : ['replication'])]
  return lacking.length === 0 ? [] : [`alter role ${role} ${lacking.join(' ')};`]
}

function rightsSql({ role: found }: SetupState, role: string): string[] {
  if (found?.superuser === true) return []
  return [
    ...(found?.monitor === true ? [] : [`grant pg_monitor to ${role};`]),
    ...(found?.backup === true
      ? []
      : [`grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean) to ${role};`]),
  ]
}

const STATE = `
  select json_build_object(
    'inRecovery', pg_is_in_recovery(),
    'major', current_setting('server_version_num')::int / 10000,
    'database', current_database(),
    'walLevel', current_setting('wal_level'),
    'walSendersMax', current_setting('max_wal_senders')::int,
    'slotsMax', current_setting('max_replication_slots')::int,
    'slotsUsed', (select count(*) from pg_replication_slots),
    'slotWalKeep', current_setting('max_slot_wal_keep_size'),
    'behind', (
      select json_build_object('slot', slot_name, 'retained', pg_size_pretty(retained)) from (
        select slot_name, pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn)
          as retained from pg_replication_slots) kept
      -- It may write on while people read: half of the limit is left to it.
      where retained > pg_size_bytes($3) / 2 order by retained desc limit 1),
    'publishesAllTables', exists (select from pg_publication where puballtables),
    'heartbeat', h.oid is not null,
    'strange', (select coalesce(json_agg(s), '[]') from (${strangeOwners('$1')}) s),
    'role', (select json_build_object('login', rolcanlogin, 'replication', rolreplication, 'superuser', rolsuper,
      'monitor', pg_has_role(r.oid, 'pg_monitor', 'usage'),
      'backup', has_function_privilege(r.oid, 'pg_backup_start(text, boolean)', 'execute')
        and has_function_privilege(r.oid, 'pg_backup_stop(boolean)', 'execute'),
      'heartbeat', coalesce(has_schema_privilege(r.oid, h.schema, 'usage') and has_table_privilege(r.oid, h.oid, 'select')
        and has_table_privilege(r.oid, h.oid, 'update')
        and (select has_table_privilege(r.oid, c.oid, 'select') and has_table_privilege(r.oid, c.oid, 'insert') and has_table_privilege(r.oid, c.oid, 'update')
          from pg_class c where c.relnamespace = h.schema and c.relname = 'canary' and c.relkind = 'r'), false))
      from pg_roles r where rolname = $1),
    'slot', (select slot_type from pg_replication_slots where slot_name = $2)) as state
  from (select 1) one left join (
    select c.oid, n.oid as schema from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'resus' and c.relname = 'heartbeat' and c.relkind = 'r') h on true`
