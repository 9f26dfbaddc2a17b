import { configuredComponent, openConfigured, resolveComponent } from '../config/open.ts'
import type { ComponentConfiguration } from '../config/configuration.ts'
import { readPostgresStatus, type PostgresStatus } from '../protect/postgres/status.ts'
import type { Repository } from '../repository/repository.ts'
import { formatBytes, formatDuration, formatFields, formatTime } from './output.ts'
import type { Context, Verb } from './verb.ts'

export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const [name] = given.args
  const wanted = name === undefined ? configuration.components : [configuredComponent(configuration, name)]
  const repository = await openConfigured(configuration, context.warn)
  const size = await measureRepository(repository)
  const statuses: PostgresStatus[] = []
  for (const component of wanted) statuses.push(await statusOf(context, repository, component))
  const where = repository.storage.description
  const head = formatFields([
    ['system', configuration.system],
    ['repository', `${where}: ${formatBytes(size.bytes)} in ${size.objects} objects`],
  ])
  return {
    json: { system: configuration.system, repository: { storage: where, ...size }, components: statuses },
    text: [head, ...statuses.map((status) => describe(status, context.clock.now()))].join('\n\n'),
  }
}

async function statusOf(context: Context, repository: Repository, component: ComponentConfiguration): Promise<PostgresStatus> {
  const resolved = await resolveComponent(component, context.warn)
  return await readPostgresStatus(repository, resolved, { clock: context.clock, signal: context.signal })
}

async function measureRepository(repository: Repository): Promise<{ objects: number; bytes: number }> {
  let objects = 0
  let bytes = 0
  for await (const { sizeBytes } of repository.storage.list('')) {
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
    ['WAL kept up to', wal === null ? 'no WAL is kept' : describeWal(wal, nowMs)],
    ['receiver', describeReceiver(receiver)],
    ['proven by a restore', status.verdict === 'not proven' ? 'not proven' : `${status.verdict} by a restore`],
  ]
  return formatFields(fields)
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
