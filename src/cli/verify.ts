import { configuredComponent, openConfigured } from '../config/open.ts'
import type { Configuration } from '../config/configuration.ts'
import { Failure } from '../errors.ts'
import { backupFingerprint, verdictExpiry } from '../repository/verdicts.ts'
import { newestBackupId, readManifest } from '../repository/backups.ts'
import type { Repository } from '../repository/repository.ts'
import { verifyRepository, type VerifyReport, type VerifyScope } from '../repository/verify.ts'
import { resusVersion } from '../version.ts'
import { keepFindings, keepVerdict } from './keep-verdict.ts'
import { formatBytes, formatFields } from './output.ts'
import { optionalText, type Answer, type Context, type Given, type Verb } from './verb.ts'
import { proveByRestore } from './verify-by-restore.ts'

const PROBLEMS_SHOWN = 50

export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const byRestore = given.options.byRestore === true
  if (!byRestore && optionalText(given, 'scratch') !== undefined) {
    throw new Failure('ARGUMENTS_INVALID', '--scratch is for --by-restore, which was not given', {
      hint: 'add --by-restore, or leave --scratch out',
    })
  }
  const repository = await openConfigured(configuration, context.warn)
  return byRestore
    ? await proveByRestore({ context, given, configuration, repository })
    : await readBack(context, { configuration, repository, given })
}

async function readBack(
  context: Context,
  { configuration, repository, given }: { configuration: Configuration; repository: Repository; given: Given },
): Promise<Answer> {
  const beganMs = context.clock.now()
  const scope = await verifyScope(configuration, repository, given)
  const report = await verifyRepository({
    repository,
    stateDirectory: configuration.state,
    scope,
    signal: context.signal,
    onProgress: (progress) => context.progress.report(progress),
  })
  const keptDamage = await keepFindings(context, repository, report.packs)
  const keptVerdict = scope.kind === 'all' || (await keepReading(context, { repository, scope, report, beganMs }))
  const fields = [
    ['read back', scope.kind === 'all' ? 'everything' : `backup ${scope.backup} of "${scope.component}"`],
    ['objects', String(report.objectsChecked)],
    ['blobs', String(report.blobsChecked)],
    ['WAL objects', String(report.walObjectsChecked)],
    ['bytes', formatBytes(report.bytesRead)],
    ['verdict', report.verdict],
    ['proven by a restore', 'not proven: reading back proves the bytes, not the recovery; see --by-restore'],
  ] as const
  const problems = report.problems.slice(0, PROBLEMS_SHOWN).map(({ object, problem }) => `  ${object}: ${problem}`)
  const more = report.problems.length > PROBLEMS_SHOWN ? [`  ... and ${report.problems.length - PROBLEMS_SHOWN} more`] : []
  return {
    json: { scope, ...report, packs: { damaged: report.packs.damaged } },
    text: [formatFields(fields), ...(problems.length > 0 ? ['problems:'] : []), ...problems, ...more].join('\n'),
    exitStatus: report.verdict === 'verified' && keptVerdict && keptDamage ? 0 : 1,
  }
}

async function verifyScope(configuration: Configuration, repository: Repository, given: Given): Promise<VerifyScope> {
  const [id] = given.args
  if (given.options.all === true) {
    if (id === undefined) return { kind: 'all' }
    throw new Failure('ARGUMENTS_INVALID', 'verify takes a backup or --all, and both were given', { hint: 'leave one out' })
  }
  const component = configuredComponent(configuration, optionalText(given, 'component')).name
  const backup = id ?? (await newestBackupId(repository, component))
  if (backup !== undefined) return { kind: 'backup', component, backup }
  throw new Failure('BACKUP_ABSENT', `"${component}" has no backup yet`, { hint: `run "resus backup ${component}"` })
}

/** Keeps what reading a backup back has found. Reading all of a repository judges no backup, and keeps nothing. */
async function keepReading(
  context: Context,
  read: {
    repository: Repository
    scope: Extract<VerifyScope, { kind: 'backup' }>
    report: VerifyReport
    beganMs: number
  },
): Promise<boolean> {
  const { repository, scope, report } = read
  const atMs = context.clock.now()
  const seconds = Math.max(0, atMs - read.beganMs) / 1000
  const [problem] = report.problems
  const good = `${report.blobsChecked} blobs and ${report.walObjectsChecked} WAL objects, all as they were written`
  const found = problem === undefined ? good : `${report.problems.length} problems: ${problem.object}: ${problem.problem}`
  const manifest = await readManifest(repository, scope.component, scope.backup).catch(() => undefined)
  return await keepVerdict(context, repository, {
    format: 1,
    backup: scope.backup,
    component: scope.component,
    verdict: report.verdict,
    by: 'read',
    target: null,
    reached: null,
    fingerprint: manifest === undefined ? null : backupFingerprint(manifest),
    at: new Date(atMs).toISOString(),
    expires: verdictExpiry(atMs),
    seconds,
    checks: [
      { name: 'read back', verdict: report.verdict, expected: 'every object that it needs, as it was written', found, seconds },
    ],
    software: { resus: resusVersion(), node: process.versions.node, postgres: null },
  })
}
