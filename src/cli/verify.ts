import { configuredComponent, openConfigured } from '../config/open.ts'
import type { Configuration } from '../config/configuration.ts'
import { Failure } from '../errors.ts'
import { newestBackupId } from '../repository/backups.ts'
import type { Repository } from '../repository/repository.ts'
import { verifyRepository, type VerifyScope } from '../repository/verify.ts'
import { formatBytes, formatFields } from './output.ts'
import { optionalText, type Given, type Verb } from './verb.ts'

const PROBLEMS_SHOWN = 50

export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const repository = await openConfigured(configuration, context.warn)
  const scope = await verifyScope(configuration, repository, given)
  const report = await verifyRepository({
    repository,
    stateDirectory: configuration.state,
    scope,
    signal: context.signal,
    onProgress: (progress) => context.progress.report(progress),
  })
  const fields = [
    ['read back', scope.kind === 'all' ? 'everything' : `backup ${scope.backup} of "${scope.component}"`],
    ['objects', String(report.objectsChecked)],
    ['blobs', String(report.blobsChecked)],
    ['WAL objects', String(report.walObjectsChecked)],
    ['bytes', formatBytes(report.bytesRead)],
    ['verdict', report.verdict],
    ['proven by a restore', 'not proven: reading back proves the bytes, not the recovery'],
  ] as const
  const problems = report.problems.slice(0, PROBLEMS_SHOWN).map(({ object, problem }) => `  ${object}: ${problem}`)
  const more = report.problems.length > PROBLEMS_SHOWN ? [`  ... and ${report.problems.length - PROBLEMS_SHOWN} more`] : []
  return {
    json: { scope, ...report },
    text: [formatFields(fields), ...(problems.length > 0 ? ['problems:'] : []), ...problems, ...more].join('\n'),
    exitStatus: report.verdict === 'verified' ? 0 : 1,
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
