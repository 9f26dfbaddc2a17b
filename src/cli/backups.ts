import { configuredComponent, openConfigured } from '../config/open.ts'
import { backupReport } from '../protect/postgres/backup.ts'
import { listBackups } from '../repository/backups.ts'
import { formatBytes, formatDuration, formatTable, formatTime } from './output.ts'
import type { Verb } from './verb.ts'

const HEAD = ['BACKUP', 'TYPE', 'FINISHED', 'AGE', 'TOOK', 'READ', 'STORED', 'FROM', 'TO', 'CORRUPT PAGES'] as const
const RIGHT = ['AGE', 'TOOK', 'READ', 'STORED', 'CORRUPT PAGES'] as const

export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, given.args[0])
  const repository = await openConfigured(configuration, context.warn)
  const reports = (await listBackups(repository, component.name)).map(backupReport)
  const rows = reports.map((report) => [
    report.id,
    report.type,
    formatTime(report.finishedAt),
    formatDuration(context.clock.now() - Date.parse(report.finishedAt)),
    formatDuration(Date.parse(report.finishedAt) - Date.parse(report.startedAt)),
    formatBytes(report.bytesRead),
    formatBytes(report.bytesStored),
    report.startLsn,
    report.stopLsn,
    String(report.corruptPages.length),
  ])
  const text = rows.length === 0 ? `"${component.name}" has no backup yet` : formatTable(HEAD, rows, RIGHT)
  return { json: reports, text }
}
