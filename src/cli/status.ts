import { resolve } from 'node:path'
import { configuredComponent, openConfigured, resolveComponent } from '../config/open.ts'
import type { ComponentConfiguration } from '../config/configuration.ts'
import { streamSpool } from '../protect/postgres/component.ts'
import { readRecoveryProgress, type RecoveryProgress } from '../protect/postgres/recovery-progress.ts'
import { readPostgresStatus, type PostgresStatus } from '../protect/postgres/status.ts'
import { PROBE_PREFIX } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import { formatBytes, formatDuration, formatFields, formatTime } from './output.ts'
import { describeReadiness, readReadiness } from './status-readiness.ts'
import { optionalText, type Context, type Verb } from './verb.ts'

export const run: Verb = async (context, given) => {
  const recovery = optionalText(given, 'recovery')
  if (recovery !== undefined) {
    const progress = await readRecoveryProgress(resolve(recovery))
    return { json: progress, text: describeRecovery(progress) }
  }
  const configuration = await context.configuration()
  const [name] = given.args
  const wanted = name === undefined ? configuration.components : [configuredComponent(configuration, name)]
  const repository = await openConfigured(configuration, context.warn)
  const size = await measureRepository(repository)
  const statuses: PostgresStatus[] = []
  for (const component of wanted) statuses.push(await statusOf(context, { repository, component, state: configuration.state }))
  const ready = await readReadiness(context, { configuration, repository, components: wanted })
  const where = repository.storage.description
  const head = formatFields([
    ['system', configuration.system],
    ...describeReadiness(ready),
    ['repository', `${where}: ${formatBytes(size.bytes)} in ${size.objects} objects`],
  ])
  return {
    json: { system: configuration.system, repository: { storage: where, ...size }, readiness: ready, components: statuses },
    text: [head, ...statuses.map((status) => describe(status, context.clock.now()))].join('\n\n'),
    exitStatus: statuses.some(({ damagedBackups }) => damagedBackups.length > 0) ? 1 : 0,
  }
}

const STATES = {
  writing: 'being written, or left by a restore that was interrupted: run the restore again to complete it',
  ready: 'complete; its server does not run: start it with the command that the restore printed',
  replaying: 'its server replays WAL, or is paused at its target',
  recovered: 'recovery has ended',
} as const

function describeRecovery(progress: RecoveryProgress): string {
  const { walBytesReplayed: done, walBytesTotal: total, segment } = progress
  const share = done === null || total === 0 ? '' : `, ${Math.floor((100 * done) / total)} %`
  const replayed = done === null ? 'not known' : `${formatBytes(done)} of ${formatBytes(total)}${share}, in segment ${segment}`
  return formatFields([
    ['directory', progress.directory],
    ['recovery of', `"${progress.component}" from backup ${progress.backup}, to ${progress.target}`],
    ['state', STATES[progress.state]],
    ['server', progress.pid === null ? 'none is seen running in it' : `runs (process ${progress.pid})`],
    ...(progress.state === 'replaying' ? [['replayed', replayed] as const] : []),
    ['WAL ends at', `${progress.walEndLsn}, timeline ${progress.timeline}`],
  ])
}

async function statusOf(
  context: Context,
  { repository, component, state }: { repository: Repository; component: ComponentConfiguration; state: string },
): Promise<PostgresStatus> {
  const resolved = await resolveComponent(component, context.warn)
  const { clock, signal } = context
  return await readPostgresStatus(repository, resolved, { spoolDirectory: streamSpool(state, component.name), clock, signal })
}

async function measureRepository(repository: Repository): Promise<{ objects: number; bytes: number }> {
  let objects = 0
  let bytes = 0
  for await (const { key, sizeBytes } of repository.storage.list('')) {
    if (key.startsWith(PROBE_PREFIX)) continue
    objects += 1
    bytes += sizeBytes
  }
  return { objects, bytes }
}

function describe(status: PostgresStatus, nowMs: number): string {
  const { newestBackup, wal, receiver } = status
  const backup =
    newestBackup === null
      ? 'none'
      : `${newestBackup.id} (${newestBackup.type}), ${formatDuration(1000 * newestBackup.ageSeconds)} old, of ${status.backups}`
  const fields: [string, string][] = [
    ['component', `${status.component} (${status.tier})`],
    ['newest backup', backup],
    ...status.damagedBackups.map((problem): [string, string] => ['DAMAGED', problem]),
    ['WAL kept up to', wal === null ? 'no WAL is kept' : describeWal(wal, nowMs)],
    ['receiver', describeReceiver(receiver)],
    ...status.spoolProblems.map((problem): [string, string] => ['SPOOL', problem]),
    ['newest backup is', describeVerdict(status)],
    ['proven by a restore', describeProven(status.proven, nowMs)],
  ]
  return formatFields(fields)
}

function describeVerdict({ newestBackup, verdict, verdictRemarks }: PostgresStatus): string {
  if (newestBackup === null) return 'not proven: there is none'
  const remarks = verdictRemarks.length === 0 ? '' : `: ${verdictRemarks.join('; ')}`
  return `${verdict === 'failed' ? 'FAILED' : verdict}${remarks}`
}

function describeProven(proven: PostgresStatus['proven'], nowMs: number): string {
  if (proven === null) return 'not proven: run "resus verify --by-restore"'
  const reached = proven.target === 'latest' ? `, with WAL up to ${proven.reachedLsn ?? 'nowhere'}` : ''
  const left = formatDuration(Date.parse(proven.expires) - nowMs)
  const until = proven.current
    ? `until ${formatTime(proven.expires)} (${left} left)`
    : 'no longer: the proof does not hold any more'
  const rest = proven.notProven.length === 0 ? '' : `; not proven: ${proven.notProven.join(', ')}`
  return `${proven.backup}${reached}, ${until}${rest}`
}

function describeWal(wal: NonNullable<PostgresStatus['wal']>, nowMs: number): string {
  const commit =
    wal.lastCommitAt === null
      ? 'no commit in it is known'
      : `last commit ${formatTime(wal.lastCommitAt)} (${formatDuration(nowMs - Date.parse(wal.lastCommitAt))} ago)`
  const gaps = wal.gaps === 0 ? 'no gap' : `${wal.gaps} GAPS`
  return `${wal.keptUpTo} on timeline ${wal.timeline}, from ${wal.keptFrom} on, ${gaps}; ${commit}`
}

function describeReceiver(receiver: PostgresStatus['receiver']): string {
  const { slot, active, synchronous, behindBytes, problem } = receiver
  const behind = behindBytes === null ? '' : `, ${formatBytes(Math.max(0, behindBytes))} behind`
  const state = active
    ? `receiving through slot "${slot}"${synchronous ? ', synchronous' : ', not synchronous'}${behind}`
    : 'NOT RECEIVING'
  return problem === null ? state : `${state}: ${problem}`
}
