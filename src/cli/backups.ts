import { configuredComponent, openConfigured } from '../config/open.ts'
import type { Failure } from '../errors.ts'
import { backupReport, type BackupReport } from '../protect/postgres/backup.ts'
import { listBackups, type BackupManifest } from '../repository/backups.ts'
import type { Repository } from '../repository/repository.ts'
import { judgeBackup, listVerdicts, type Standing } from '../repository/verdicts.ts'
import { formatBytes, formatDuration, formatTable, formatTime } from './output.ts'
import type { Verb } from './verb.ts'

const HEAD = ['BACKUP', 'TYPE', 'FINISHED', 'AGE', 'TOOK', 'READ', 'STORED', 'FROM', 'TO', 'CORRUPT PAGES', 'VERDICT'] as const
const RIGHT = ['AGE', 'TOOK', 'READ', 'STORED', 'CORRUPT PAGES'] as const

export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, given.args[0])
  const repository = await openConfigured(configuration, context.warn)
  const now = context.clock.now()
  const listed: { report: BackupReport; standing: Standing }[] = []
  let damaged = 0
  const onDamaged = ({ message }: Failure) => {
    damaged += 1
    context.warn(message)
  }
  for (const manifest of await listBackups(repository, component.name, onDamaged)) {
    listed.push({ report: backupReport(manifest), standing: await standingOf(repository, manifest, now) })
  }
  for (const { report, standing } of listed) {
    for (const remark of standing.remarks) context.warn(`backup ${report.id}: ${remark}`)
  }
  const rows = listed.map(({ report, standing }) => [
    report.id,
    report.type,
    formatTime(report.finishedAt),
    formatDuration(now - Date.parse(report.finishedAt)),
    formatDuration(Date.parse(report.finishedAt) - Date.parse(report.startedAt)),
    formatBytes(report.bytesRead),
    formatBytes(report.bytesStored),
    report.startLsn,
    report.stopLsn,
    String(report.corruptPages.length),
    describeStanding(standing),
  ])
  const text = rows.length === 0 ? `"${component.name}" has no backup yet` : formatTable(HEAD, rows, RIGHT)
  const json = listed.map(({ report, standing }) => {
    const { at = null, expires = null, by = null } = standing.decidedBy ?? {}
    return { ...report, verdict: { verdict: standing.verdict, by, at, expires, remarks: standing.remarks } }
  })
  // One that cannot be read does not hide the others, and is not passed over in silence.
  return { json, text, exitStatus: damaged === 0 ? 0 : 1 }
}

async function standingOf(repository: Repository, manifest: BackupManifest, nowMs: number): Promise<Standing> {
  return judgeBackup(await listVerdicts(repository, manifest.component, manifest.id), manifest, nowMs)
}

function describeStanding({ verdict, decidedBy }: Standing): string {
  if (verdict === 'verified' && decidedBy !== undefined) return `verified until ${formatTime(decidedBy.expires)}`
  if (verdict === 'failed' && decidedBy !== undefined) return `FAILED at ${formatTime(decidedBy.at)} (by ${decidedBy.by})`
  return 'not proven'
}
