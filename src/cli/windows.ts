import { configuredComponent, openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { formatLsn } from '../postgres/lsn.ts'
import { formatMicros } from '../postgres/timestamp.ts'
import type { RestorePoint } from '../postgres/wal-summary.ts'
import { AroundSearch, describeAround, type Around, type KnownCommit } from '../protect/postgres/around.ts'
import { readWindows, type ComponentWindows, type SpooledWal } from '../protect/postgres/read-windows.ts'
import { quoteShell } from '../protect/postgres/recovery-settings.ts'
import type { RestoreWindow, WindowGap } from '../protect/postgres/windows.ts'
import { formatBytes, formatTable } from './output.ts'
import { parseTargetTime } from './target-time.ts'
import { optionalText, type Verb } from './verb.ts'

/** Restore points shown of a window as text; `--json` has more. */
const POINTS_SHOWN = 10

/** Shows what a component can be restored to; with --around, what lies next to an instant and how to get to just before it. */
export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, given.args[0])
  const around = optionalText(given, 'around')
  const micros = around === undefined ? undefined : parseAround(around)
  const repository = await openConfigured(configuration, context.warn)
  const search = micros === undefined ? undefined : new AroundSearch(micros)
  const known = await readWindows({
    repository,
    component: component.name,
    stateDirectory: configuration.state,
    signal: context.signal,
    ...(search === undefined ? {} : { observe: (branch, noted, to) => search.observe(branch, noted, to) }),
  })
  for (const notice of known.notices) context.warn(notice)
  if (micros === undefined || search === undefined)
    return { json: windowsJson(component.name, known), text: windowsText(component.name, known) }
  const commits = await search.commits(repository, { signal: context.signal })
  const found = describeAround(micros, { ...known, commits })
  const command = restoreCommandLine(component.name, configuration.path, found)
  return { json: aroundJson(micros, found, command), text: aroundText(micros, found, command) }
}

function parseAround(text: string): bigint {
  try {
    return parseTargetTime(text)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    throw new Failure(
      'ARGUMENTS_INVALID',
      error.message.replace('--target-time', '--around'),
      error.hint === undefined ? {} : { hint: error.hint },
    )
  }
}

function windowsJson(component: string, known: ComponentWindows): unknown {
  return {
    component,
    windows: known.windows.map((window) => ({
      ...window,
      fromLsn: formatLsn(window.fromLsn),
      toLsn: formatLsn(window.toLsn),
      walEndLsn: formatLsn(window.walEndLsn),
      lastCommit: timeOf(window.lastCommit),
      restorePoints: window.restorePoints.map(pointJson),
    })),
    gaps: known.gaps.map((gap) => ({
      ...gap,
      fromLsn: formatLsn(gap.fromLsn),
      toLsn: formatLsn(gap.toLsn),
      commitBefore: timeOf(gap.commitBefore),
      commitAfter: timeOf(gap.commitAfter),
    })),
    spooled: known.spooled.map(({ timeline, fromLsn, toLsn }) => ({
      timeline,
      fromLsn: formatLsn(fromLsn),
      toLsn: formatLsn(toLsn),
      bytes: Number(toLsn - fromLsn),
    })),
    unusableBackups: known.unusable,
  }
}

const HEAD = [
  'LINE',
  'TIMELINES',
  'FROM',
  'TO (LAST COMMIT)',
  'FROM LSN',
  'TO LSN',
  'FIRST BACKUP',
  'BACKUPS',
  'SYNCHRONOUS',
] as const

function windowsText(component: string, known: ComponentWindows): string {
  const { windows, gaps, spooled, unusable } = known
  const rows = windows.map((window) => [
    window.state,
    window.timelines.join('>'),
    window.fromTime ?? '',
    timeOf(window.lastCommit) ?? 'no commit known',
    formatLsn(window.fromLsn),
    formatLsn(window.toLsn),
    window.backup,
    String(window.backups),
    window.synchronous,
  ])
  const none = `nothing of "${component}" can be restored yet: take a backup ("resus backup ${component}")`
  const lines = [windows.length === 0 ? none : formatTable(HEAD, rows, ['BACKUPS'])]
  for (const window of windows) lines.push(...pointLines(window))
  lines.push(...gaps.map(gapLine), ...spooled.map(spoolLine))
  for (const id of unusable) lines.push(`backup ${id} cannot be restored: the WAL that it needs is not whole`)
  return lines.join('\n')
}

function pointLines(window: RestoreWindow): string[] {
  const shown = window.restorePoints.slice(-POINTS_SHOWN)
  const more = window.restorePoints.length - shown.length + window.restorePointsLeftOut
  const lines = shown.map((point) => `restore point ${describePoint(point)}`)
  return more === 0 ? lines : [...lines, `... and ${more} restore points before these`]
}

function gapLine(gap: WindowGap): string {
  const where = `gap on timeline ${gap.timeline}: ${formatLsn(gap.fromLsn)} to ${formatLsn(gap.toLsn)} (${formatBytes(Number(gap.toLsn - gap.fromLsn))})`
  const when = `last commit before it ${timeOf(gap.commitBefore) ?? 'unknown'}, first behind it ${timeOf(gap.commitAfter) ?? 'unknown'}`
  const why =
    gap.recorded === null ? 'found, recorded by nobody: objects may be lost' : `recorded ${gap.recorded.at}: ${gap.recorded.why}`
  return `${where}; ${when}; ${why}`
}

function spoolLine({ timeline, fromLsn, toLsn }: SpooledWal): string {
  const bytes = formatBytes(Number(toLsn - fromLsn))
  return `${bytes} acknowledged beyond the repository, on timeline ${timeline} up to ${formatLsn(toLsn)}, lie in this host's spool alone`
}

/** The command that restores to the target, to be pasted into a shell. */
function restoreCommandLine(component: string, configPath: string, { target }: Around): string | null {
  if (target === null) return null
  const words = ['resus', 'restore', component, '--config', configPath, '--to', 'DIRECTORY']
  switch (target.kind) {
    case 'time':
      words.push('--target-time', formatMicros(target.micros))
      break
    case 'lsn':
      words.push('--target-lsn', formatLsn(target.lsn))
      break
    default:
      words.push('--latest')
  }
  return words.map(quoteShell).join(' ')
}

function aroundJson(micros: bigint, found: Around, command: string | null): unknown {
  return {
    around: formatMicros(micros),
    commits: { before: commitJson(found.commits.before), after: commitJson(found.commits.after) },
    backups: {
      before: found.backups.before.map(({ id, stopTime }) => ({ id, stopTime })),
      after: found.backups.after.map(({ id, stopTime }) => ({ id, stopTime })),
    },
    restorePoints: { before: found.restorePoints.before.map(pointJson), after: found.restorePoints.after.map(pointJson) },
    exact: found.exact,
    command,
  }
}

function aroundText(micros: bigint, found: Around, command: string | null): string {
  const { commits, backups, restorePoints } = found
  const rows = [
    ...backups.before.toReversed().map(({ id, stopTime }) => ['before', 'backup', stopTime, id]),
    ...restorePoints.before.toReversed().map((point) => ['before', 'restore point', timeOf(point.timeMicros)!, point.name]),
    ...(commits.before === null ? [] : [['before', 'last commit', ...describeCommit(commits.before)]]),
    ...(commits.after === null ? [] : [['after', 'first commit', ...describeCommit(commits.after)]]),
    ...restorePoints.after.map((point) => ['after', 'restore point', timeOf(point.timeMicros)!, point.name]),
    ...backups.after.map(({ id, stopTime }) => ['after', 'backup', stopTime, id]),
  ]
  const table = rows.length === 0 ? 'nothing is known around that time' : formatTable(['', 'WHAT', 'TIME', 'NAME'], rows)
  const time = formatMicros(micros)
  if (command === null) return `${table}\n\nNothing that is kept leads to a moment before ${time}.`
  const what = found.exact
    ? `To restore to just before ${time}:`
    : `The moment before ${time} lies in a gap. To restore to the last moment before the gap:`
  return `${table}\n\n${what}\n\n  ${command}`
}

function commitJson(commit: KnownCommit | null): unknown {
  return commit === null
    ? null
    : { ...commit, timeMicros: undefined, time: timeOf(commit.timeMicros), lsn: formatLsn(commit.lsn) }
}

function describeCommit({ timeMicros, lsn, xid }: KnownCommit): string[] {
  return [timeOf(timeMicros)!, `${xid === null ? '' : `transaction ${xid}, `}ends at ${formatLsn(lsn)}`]
}

function pointJson({ name, lsn, timeMicros }: RestorePoint): unknown {
  return { name, lsn: formatLsn(lsn), time: timeOf(timeMicros) }
}

function describePoint({ name, lsn, timeMicros }: RestorePoint): string {
  return `"${name}" at ${timeOf(timeMicros)} (${formatLsn(lsn)})`
}

function timeOf(micros: bigint | null): string | null {
  return micros === null ? null : formatMicros(micros)
}
