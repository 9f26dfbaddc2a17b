import { configuredComponent, openConfigured, resolveComponent } from '../config/open.ts'
import { Failure } from '../errors.ts'
import type { BackupReport } from '../protect/postgres/backup.ts'
import { BACKUP_TYPES, type BackupType } from '../repository/backups.ts'
import { formatBytes, formatDuration, formatFields } from './output.ts'
import { optionalText, type Given, type Verb } from './verb.ts'

const CORRUPT_PAGES_SHOWN = 20

export const run: Verb = async (context, given) => {
  const type = backupType(given)
  const configuration = await context.configuration()
  const component = await resolveComponent(configuredComponent(configuration, given.args[0]), context.warn)
  // Opening derives a key, which takes another thread a third of a second: the engine is loaded meanwhile.
  const [repository, { backupPostgres }] = await Promise.all([
    openConfigured(configuration, context.warn),
    import('../protect/postgres/backup.ts'),
  ])
  const report = await backupPostgres({
    repository,
    component,
    stateDirectory: configuration.state,
    ...(type === undefined ? {} : { type }),
    clock: context.clock,
    signal: context.signal,
    onProgress: (progress) => context.progress.report(progress),
    onNotice: (text) => context.progress.print(text),
  })
  const took = Date.parse(report.finishedAt) - Date.parse(report.startedAt)
  const fields = [
    ['backup', report.id],
    ['component', report.component],
    ['type', report.type],
    ['took', formatDuration(took)],
    ['read', formatBytes(report.bytesRead)],
    ['stored', `${formatBytes(report.bytesStored)}, and ${formatBytes(report.walBytesStored)} of WAL`],
    ['reused', formatBytes(report.bytesReused)],
    ['from', `${report.startLsn} on timeline ${report.timeline}`],
    ['to', report.stopLsn],
    ['pages checked', String(report.pagesChecked)],
    ['corrupt pages', String(report.corruptPages.length)],
    ['proven by a restore', 'not proven'],
  ] as const
  if (report.corruptPages.length > 0) context.warn(describeCorruption(report))
  const corrupt = report.corruptPages.slice(0, CORRUPT_PAGES_SHOWN).map(({ path, block }) => `  corrupt: ${path}, block ${block}`)
  // A backup with corrupt pages is kept: it may be the best there is. But somebody has to look.
  return {
    json: report,
    text: [formatFields(fields), ...corrupt].join('\n'),
    exitStatus: report.corruptPages.length === 0 ? 0 : 1,
  }
}

function describeCorruption(report: BackupReport): string {
  const { message, hint, code } = new Failure(
    'PAGES_CORRUPT',
    `${report.corruptPages.length} pages of "${report.component}" have a wrong checksum on the server`,
    {
      hint: 'the backup is kept and names them; look at disk and memory now, and at the backups before this one',
    },
  )
  return `${code}: ${message}; ${hint}`
}

function backupType(given: Given): BackupType | undefined {
  const text = optionalText(given, 'type')
  const found = BACKUP_TYPES.find((each) => each === text)
  if (text === undefined || found !== undefined) return found
  throw new Failure('ARGUMENTS_INVALID', `--type is "${text}", wanted ${BACKUP_TYPES.join(', ')}`, {
    hint: 'leave it out for an incremental backup',
  })
}
