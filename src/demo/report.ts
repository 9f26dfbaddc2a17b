import { styleText } from 'node:util'
import type { BackupReport } from '../protect/postgres/backup.ts'
import type { HospitalCheck } from './hospital-checks.ts'
import { HIGHEST_READINESS, type Rehearsal } from './rehearsal.ts'
import type { Recovery, RecoveryTimes } from './recovery.ts'

/** What a demo measured. */
export interface DemoReport {
  readonly held: boolean
  readonly seed: number
  readonly directory: string
  readonly backups: readonly BackupReport[]
  readonly recovery: Recovery
  /** Before the disaster and since. */
  readonly acknowledged: { readonly count: number; readonly lost: number }
  readonly checks: readonly HospitalCheck[]
  readonly rehearsal: Rehearsal
}

/** What this demo cannot show. It is printed with every result. */
export const NOT_CHECKED = [
  'another machine: repository, key, receiver and server were all on this one',
  'a power cut: processes were killed, but what the disk had promised to keep was kept',
  'the loss of the receiver together with the server: what only its spool holds would then be lost (up to 1 s of writes here)',
  "PostgreSQL's own pg_verifybackup and pg_checksums, which the embedded package does not have: pages were checked by Resus",
  "the hospital's files: they were not part of the disaster, and Resus does not protect files yet",
] as const

const PHASES: readonly (readonly [from: keyof RecoveryTimes, to: keyof RecoveryTimes, name: string])[] = [
  ['fault', 'detected', 'until the hospital said that it is down'],
  ['detected', 'dataReady', 'restoring the files'],
  ['dataReady', 'recoveryEnded', 'starting, and replaying WAL'],
  ['recoveryEnded', 'firstVerifiedTransaction', 'until the hospital gave the newest write back, and took a new one'],
]

const CHECK_NAME_WIDTH = 26
const MARKS = { passed: styleText('green', '✔'), failed: styleText('red', '✖'), 'not proven': styleText('yellow', '?') } as const

/** The report as one JSON document. */
export function reportJson(report: DemoReport): unknown {
  const { times, restore, redoDone, lastTransactionAt } = report.recovery
  return {
    held: report.held,
    seed: report.seed,
    directory: report.directory,
    secondsToFirstVerifiedTransaction: secondsBetween(times, 'fault', 'firstVerifiedTransaction'),
    phases: PHASES.map(([from, to, name]) => ({ name, seconds: secondsBetween(times, from, to) })),
    times: Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, new Date(ms).toISOString()])),
    acknowledgedWritesBeforeFault: report.recovery.acknowledged,
    acknowledgedWrites: report.acknowledged.count,
    acknowledgedWritesLost: report.acknowledged.lost,
    backups: report.backups,
    restore,
    redoDone,
    lastTransactionAt,
    checks: report.checks,
    rehearsal: report.rehearsal,
    notChecked: NOT_CHECKED,
  }
}

/** The report for people. */
export function reportText(report: DemoReport): string {
  const { recovery, checks, acknowledged } = report
  const lost = `acknowledged writes lost: ${acknowledged.lost}`
  const seconds = secondsBetween(recovery.times, 'fault', 'firstVerifiedTransaction').toFixed(2)
  return [
    heading('Measured'),
    `  ${styleText('bold', `fault to first verified transaction: ${seconds} s`)}`,
    ...PHASES.map(([from, to, name]) => `    ${secondsBetween(recovery.times, from, to).toFixed(2).padStart(6)} s  ${name}`),
    `  ${styleText(acknowledged.lost === 0 ? ['bold', 'green'] : ['bold', 'red'], lost)} of ${acknowledged.count}, ${recovery.acknowledged} of them before the disaster`,
    heading('Restored'),
    ...restoredLines(recovery),
    heading('Checked'),
    ...checks.flatMap(checkLines),
    heading('Rehearsed, and signed'),
    ...rehearsalLines(report.rehearsal),
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

function rehearsalLines({ drill, fingerprint, evidence, readiness }: Rehearsal): string[] {
  const { verdict, measured, checks } = drill
  const verified = checks.filter((each) => each.verdict === 'verified').length
  const mark = verdict === 'verified' ? MARKS.passed : verdict === 'failed' ? MARKS.failed : MARKS['not proven']
  const rto = measured.rtoSeconds === null ? 'not measured' : `${measured.rtoSeconds.toFixed(2)} s, all checks included`
  return [
    `  ${mark} drill: ${verdict}${verdict === 'verified' ? `, ${verified} of ${checks.length} checks` : `: ${drill.why}`}; restored, judged by the hospital, and taken away`,
    ...checks.filter((each) => each.verdict === 'failed').map(({ name, found }) => `    ${MARKS.failed} ${name}: ${found}`),
    `    RTO ${rto}; RPO ${measured.rpoSeconds === null ? `not measured: ${measured.why['rpoSeconds'] ?? ''}` : `${measured.rpoSeconds.toFixed(2)} s`}`,
    `  ${evidence.verdict === 'verified' ? MARKS.passed : MARKS.failed} evidence: record ${drill.sequence}, checked offline from its bundle: ${evidence.verdict}`,
    `    signed by ${fingerprint}`,
    `  readiness ${readiness.score.toFixed(2)}, of at most ${HIGHEST_READINESS.toFixed(2)} that this release can reach: immutability, playbooks and contacts are not measured yet`,
  ]
}

function checkLines(check: HospitalCheck): string[] {
  const line = `  ${MARKS[check.verdict]} ${`${check.name}:`.padEnd(CHECK_NAME_WIDTH)}${check.found}`
  return check.verdict === 'failed' ? [line, `    expected: ${check.expected}`] : [line]
}

function heading(text: string): string {
  return `\n${styleText('bold', text)}`
}

function secondsBetween(times: RecoveryTimes, from: keyof RecoveryTimes, to: keyof RecoveryTimes): number {
  return Math.max(0, times[to] - times[from]) / 1000
}
