import { canonicalJson, type Json } from '../authority/canonical-json.ts'
import { newestConfiguration } from '../authority/configurations.ts'
import type { Configuration } from '../config/configuration.ts'
import { configuredComponent, openConfigured } from '../config/open.ts'
import { expireRepository, type BackupFate, type ExpireReport } from '../repository/expire.ts'
import type { Repository } from '../repository/repository.ts'
import { clear } from './clearance.ts'
import { formatBytes, formatFields, formatTable, formatTime } from './output.ts'
import type { Context, Given, Verb } from './verb.ts'

type Component = Configuration['components'][number]

const HEAD = ['BACKUP', 'FINISHED', 'FATE', 'WHY'] as const

export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const [name] = given.args
  const components = name === undefined ? configuration.components : [configuredComponent(configuration, name)]
  const repository = await openConfigured(configuration, context.warn)
  const dryRun = given.options.dryRun === true
  if (!dryRun) await requireKnownRetention(context, given, repository, components)
  const report = await expireRepository({
    repository,
    stateDirectory: configuration.state,
    keep: new Map(components.map((component) => [component.name, component.keep])),
    dryRun,
    clock: context.clock,
    signal: context.signal,
  })
  return { json: report, text: describe(report) }
}

/** What the repository knows as accepted anybody may carry out; another retention takes a second person, once there are people. */
async function requireKnownRetention(
  context: Context,
  given: Given,
  repository: Repository,
  components: readonly Component[],
): Promise<void> {
  const anchor = await newestConfiguration(repository)
  const accepted = (anchor?.document['components'] ?? {}) as Readonly<Record<string, { readonly keep?: Json } | undefined>>
  const asJson = (value: unknown) => JSON.parse(JSON.stringify(value ?? null)) as Json
  const others = components.filter(
    ({ name, keep }) => canonicalJson(asJson(accepted[name]?.keep)) !== canonicalJson(asJson(keep)),
  )
  if (others.length === 0) return
  await clear(context, given, repository, {
    operation: 'expire',
    parameters: { keep: Object.fromEntries(others.map(({ name, keep }) => [name, asJson(keep)])) },
    isNewPlace: false,
  })
}

function describe(report: ExpireReport): string {
  const { packs, deadBytes, dryRun } = report
  const parts = report.components.map(({ component, backups, wal }) => {
    const rows = backups.map((backup) => [backup.id, formatTime(backup.finishedAt), backup.fate, reasonOf(backup)])
    const table = rows.length === 0 ? `"${component}" has no backup` : formatTable(HEAD, rows)
    const marked = `${wal.markedObjects} objects of WAL marked (${formatBytes(wal.markedBytes)})`
    return `${component}\n${table}\n${marked}, ${wal.deletedObjects} deleted (${formatBytes(wal.deletedBytes)})`
  })
  const fields = [
    ['packs marked', `${packs.marked} (${formatBytes(packs.markedBytes)})`],
    ['packs deleted', `${packs.deleted} (${formatBytes(packs.deletedBytes)})`],
    ['dead bytes in packs that stay', deadBytes === null ? 'too many blobs to count' : formatBytes(deadBytes)],
  ] as const
  const head = dryRun ? ['nothing was touched; this is what a run would do now'] : []
  return [...head, ...parts, formatFields(fields)].join('\n\n')
}

function reasonOf(backup: BackupFate): string {
  switch (backup.fate) {
    case 'stays':
      return backup.reasons.join(', ')
    case 'expires':
    case 'marked':
      return `deleted by a run after ${formatTime(backup.deletableFrom!)}`
    case 'goes':
      return 'its time is over, and the grace period too'
    default:
      return backup.fate satisfies never
  }
}
