import type { Configuration } from '../config/configuration.ts'
import { configuredAccess, configuredStorage } from '../config/open.ts'
import { Failure } from '../errors.ts'
import type { CheckItem } from '../protect/postgres/check-item.ts'
import { openRepository, type Repository } from '../repository/repository.ts'
import { probeStorage } from '../repository/storage-probe.ts'
import { DIRECTORY_PERMISSIONS } from '../storage/permissions.ts'
import { formatTable } from './output.ts'
import type { Answer, Context } from './verb.ts'

/** The self-test of the configured storage: one check for each operation, with the right that it needs. */
export async function checkStorage(
  configuration: Configuration,
  context: Pick<Context, 'clock' | 'signal'>,
): Promise<CheckItem[]> {
  const storage = configuredStorage(configuration)
  const findings = await probeStorage(storage, context)
  return findings.map(({ operation, verdict, found }) => {
    const needed = `needs ${DIRECTORY_PERMISSIONS[operation]}`
    const expiry = operation === 'delete' ? '; where deleting is refused on purpose, "resus expire" cannot make room' : ''
    const hint = verdict === 'passed' ? '' : `${needed}${expiry}`
    return { name: `storage: ${operation}`, verdict, expected: storage.description, found, hint }
  })
}

/** A repository that does not open is a finding, not the end of the check's answer. */
export async function openForCheck(context: Context): Promise<{ item: CheckItem; repository?: Repository }> {
  const name = 'repository opens with the key'
  const configuration = await context.configuration()
  try {
    const repository = await openRepository(await configuredAccess(configuration, context.warn))
    const found = repository.storage.description
    return { item: { name, verdict: 'passed', expected: `that of "${repository.system}"`, found, hint: '' }, repository }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const expected = `that of "${configuration.system}"`
    return { item: { name, verdict: 'failed', expected, found: error.message, hint: error.hint ?? '' } }
  }
}

/** Exit status 1 when one has failed. */
export function reportChecks(items: readonly CheckItem[], said: { good: string; json: Record<string, unknown> }): Answer {
  const failed = items.filter(({ verdict }) => verdict === 'failed').length
  const rows = items.map(({ verdict, name, expected, found }) => [verdict, name, expected, found])
  const hints = items.flatMap(({ verdict, name, hint }) => (verdict === 'passed' || !hint ? [] : [`hint: ${name}: ${hint}`]))
  const outcome = failed === 0 ? said.good : `${failed} of ${items.length} checks failed`
  return {
    json: { ...said.json, verdict: failed === 0 ? 'passed' : 'failed', checks: items },
    text: [formatTable(['VERDICT', 'CHECK', 'EXPECTED', 'FOUND'], rows), ...hints, outcome].join('\n'),
    exitStatus: failed === 0 ? 0 : 1,
  }
}
