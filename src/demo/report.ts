import { styleText } from 'node:util'
import type { BackupReport } from '../protect/postgres/backup.ts'
import type { HospitalCheck } from './hospital-checks.ts'
import type { Recovery, RecoveryTimes } from './recovery.ts'

/** What a demo measured. */
export interface DemoReport {
  readonly held: boolean
  readonly seed: number
  readonly directory: string
  readonly backups: readonly BackupReport[]
  readonly recovery: Recovery
  readonly acknowledgedLost: number | null
  readonly checks: readonly HospitalCheck[]
}

/** What this demo cannot show. It is printed with every result. */
export const NOT_CHECKED = [
  'another machine: repository, key, receiver and server were all on this one',
  'a power cut: processes were killed, but what the disk had promised to keep was kept',
  'the loss of the receiver together with the server: what only its spool holds would then be lost (up to 1 s of writes here)',
  "PostgreSQL's own pg_verifybackup and pg_checksums, which the embedded package does not have: pages were checked by Resus",
  'any application in front of the database, and whatever it had sent to others since',
] as const

const PHASES: readonly (readonly [from: keyof RecoveryTimes, to: keyof RecoveryTimes, name: string])[] = [
  ['fault', 'detected', 'until the first write failed'],
  ['detected', 'restoreBegun', 'until the restore began'],
  ['restoreBegun', 'dataReady', 'restoring the files'],
  ['dataReady', 'recoveryEnded', 'starting, and replaying WAL'],
  ['recoveryEnded', 'firstVerifiedTransaction', 'reading the newest write, writing a new one'],
]

/** The report as one JSON document. */
export function reportJson(report: DemoReport): unknown {
  const { times, restore, acknowledged, redoDone, lastTransactionAt } = report.recovery
  return {
    held: report.held,
    seed: report.seed,
    directory: report.directory,
    secondsToFirstVerifiedTransaction: secondsBetween(times, 'fault', 'firstVerifiedTransaction'),
    phases: PHASES.map(([from, to, name]) => ({ name, seconds: secondsBetween(times, from, to) })),
    times: Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, new Date(ms).toISOString()])),
    acknowledgedWrites: acknowledged.length,
    acknowledgedWritesLost: report.acknowledgedLost,
    backups: report.backups,
    restore,
    redoDone,
    lastTransactionAt,
    checks: report.checks,
    notChecked: NOT_CHECKED,
  }
}

/** The report for people. */
export function reportText(report: DemoReport): string {
  const { recovery, checks } = report
  const lost = `acknowledged writes lost: ${report.acknowledgedLost ?? 'not known'}`
  const seconds = secondsBetween(recovery.times, 'fault', 'firstVerifiedTransaction').toFixed(2)
  return [
    heading('Measured'),
    `  ${styleText('bold', `fault to first verified transaction: ${seconds} s`)}`,
    ...PHASES.map(([from, to, name]) => `    ${secondsBetween(recovery.times, from, to).toFixed(2).padStart(6)} s  ${name}`),
    `  ${styleText(report.acknowledgedLost === 0 ? ['bold', 'green'] : ['bold', 'red'], lost)} of ${recovery.acknowledged.length} in the log`,
    heading('Restored'),
    ...restoredLines(recovery),
    heading('Checked'),
    ...checks.flatMap(checkLines),
    heading('Not checked'),
    ...NOT_CHECKED.map((text) => `  - ${text}`),
    '',
    report.held ? styleText(['bold', 'green'], 'Everything held.') : styleText(['bold', 'red'], 'NOT EVERYTHING HELD.'),
  ].join('\n')
}

function restoredLines({ restore, redoDone, lastTransactionAt }: Recovery): string[] {
  return [
    `  backup ${restore.backup}, ${(restore.bytesWritten / 1e6).toFixed(1)} MB written in ${restore.seconds.toFixed(2)} s`,
    `  WAL replayed up to ${redoDone ?? 'an LSN that the server did not log'} (the repository had it up to ${restore.walEndLsn}), timeline ${restore.timeline}`,
    `  last transaction in it: ${lastTransactionAt ?? 'none'}`,
  ]
}

function checkLines(check: HospitalCheck): string[] {
  const mark = check.passed ? styleText('green', '✔') : styleText('red', '✖')
  const line = `  ${mark} ${`${check.name}:`.padEnd(22)}${check.found}`
  return check.passed ? [line] : [line, `    expected: ${check.expected}`]
}

function heading(text: string): string {
  return `\n${styleText('bold', text)}`
}

function secondsBetween(times: RecoveryTimes, from: keyof RecoveryTimes, to: keyof RecoveryTimes): number {
  return Math.max(0, times[to] - times[from]) / 1000
}
