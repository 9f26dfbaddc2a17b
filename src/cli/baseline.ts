import { configuredComponent, openConfigured, resolveComponent } from '../config/open.ts'
import { putBaseline, type Baseline } from '../protect/postgres/content/baseline.ts'
import { takeBaseline } from '../protect/postgres/content/take-baseline.ts'
import { formatFields, formatTime } from './output.ts'
import { plainText } from './plain-text.ts'
import type { Verb } from './verb.ts'

/** Takes a baseline of a component off its server, and keeps it. Exit status 1 where not one table could be read. */
export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const component = await resolveComponent(configuredComponent(configuration, given.args[0]), context.warn)
  const repository = await openConfigured(configuration, context.warn)
  const { signal } = context
  const baseline = await takeBaseline({ component, signal, onProgress: (progress) => context.progress.report(progress) })
  const name = await putBaseline(repository, baseline, { signal })
  // What was left out is said, and never a reason to be silent about the rest.
  for (const { name: table, why } of baseline.unread) context.warn(plainText(`${table} is not in the baseline: ${why}`))
  const { catalog, fhir, ...shown } = baseline
  return {
    json: { name, ...shown, facts: catalog.length, fhir: fhir !== null },
    text: describe(baseline),
    exitStatus: baseline.tables.length === 0 ? 1 : 0,
  }
}

function describe({ component, database, at, lsn, timeline, tables, unread, catalog }: Baseline): string {
  const rows = tables.reduce((sum, table) => sum + table.rows, 0)
  return formatFields([
    ['baseline', plainText(`of "${component}", database "${database}"`)],
    ['taken at', formatTime(at)],
    ['position', `${lsn} on timeline ${timeline}`],
    ['tables', `${tables.length}, ${rows} rows`],
    ['catalog', `${catalog.length} facts: extensions, roles, rights, policies, settings`],
    ['left out', unread.length === 0 ? 'nothing' : `${unread.length} tables`],
  ])
}
