import { configuredComponent } from '../config/open.ts'
import type { Configuration } from '../config/configuration.ts'
import { Failure } from '../errors.ts'
import { verifyByRestore, type VerifyByRestoreOptions } from '../protect/postgres/verify.ts'
import type { RecoveryTarget } from '../protect/postgres/recovery-target.ts'
import { newestBackupId } from '../repository/backups.ts'
import type { Repository } from '../repository/repository.ts'
import type { Verdict } from '../repository/verdicts.ts'
import { keepVerdict, notingDamage } from './keep-verdict.ts'
import { formatDuration, formatFields, formatTime } from './output.ts'
import { copyContext } from './scratch-place.ts'
import { optionalText, type Answer, type Context, type Given } from './verb.ts'

const LATEST = 'latest'

/** `resus verify --by-restore`: exit status 0 only for "verified". */
export async function proveByRestore(run: {
  context: Context
  given: Given
  configuration: Configuration
  repository: Repository
}): Promise<Answer> {
  const { context, given, configuration, repository } = run
  if (given.options.all === true) {
    throw new Failure('ARGUMENTS_INVALID', '--by-restore proves one backup, and --all was given', { hint: 'leave one out' })
  }
  const component = configuredComponent(configuration, optionalText(given, 'component'))
  const options: VerifyByRestoreOptions = {
    repository,
    component,
    target: await proofTarget(repository, component.name, given.args[0]),
    ...(await copyContext(context, given, { configuration, component })),
  }
  const verdict = await notingDamage(context, repository, async (onDamagedPack) => verifyByRestore({ ...options, onDamagedPack }))
  const kept = await keepVerdict(context, repository, verdict)
  return {
    json: { ...verdict, kept },
    text: describe(verdict),
    exitStatus: verdict.verdict === 'verified' && kept ? 0 : 1,
  }
}

async function proofTarget(repository: Repository, component: string, named: string | undefined): Promise<RecoveryTarget> {
  if (named === LATEST) return { kind: 'latest' }
  const backup = named ?? (await newestBackupId(repository, component))
  if (backup !== undefined) return { kind: 'backup', backup }
  throw new Failure('BACKUP_ABSENT', `"${component}" has no backup yet`, { hint: `run "resus backup ${component}"` })
}

function describe(verdict: Verdict): string {
  const { reached, checks } = verdict
  const until = verdict.verdict === 'verified' ? `, until ${formatTime(verdict.expires)}` : ''
  const fields = [
    ['backup', `${verdict.backup} of "${verdict.component}"`],
    ['restored to', verdict.target === LATEST ? 'the end of the WAL that is kept' : 'the end of the backup'],
    ['reached', reached === null ? 'not reached' : `${reached.lsn} on timeline ${reached.timeline}`],
    ['took', formatDuration(1000 * verdict.seconds)],
    ['verdict', `${verdict.verdict}${until}`],
  ] as const
  const lines = checks.map(({ name, verdict: each, found, seconds }) => {
    const took = each === 'skipped' ? '' : ` (${formatDuration(1000 * seconds)})`
    return `  ${each.padEnd(10)}  ${name}: ${found}${took}`
  })
  const unproven = checks.filter(({ verdict: each }) => each === 'not proven').map(({ name }) => name)
  const rest = unproven.length > 0 && verdict.verdict === 'verified' ? [`Not proven: ${unproven.join(', ')}.`] : []
  return [formatFields(fields), 'checks:', ...lines, ...rest].join('\n')
}
