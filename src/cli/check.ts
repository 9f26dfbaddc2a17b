import { configuredAccess, configuredComponent, resolveComponent } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { checkPostgres, type CheckItem } from '../protect/postgres/check.ts'
import { openRepository, type Repository } from '../repository/repository.ts'
import { formatTable } from './output.ts'
import type { Context, Verb } from './verb.ts'

export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, given.args[0])
  const { item, repository } = await openForCheck(context)
  const items = [item]
  if (repository !== undefined) {
    const resolved = await resolveComponent(component, context.warn)
    const { clock, signal } = context
    items.push(...(await checkPostgres({ repository, component: resolved, stateDirectory: configuration.state, clock, signal })))
  }
  const failed = items.filter(({ verdict }) => verdict === 'failed').length
  const rows = items.map(({ verdict, name, expected, found }) => [verdict, name, expected, found])
  const hints = items.flatMap(({ verdict, name, hint }) => (verdict === 'passed' || !hint ? [] : [`hint: ${name}: ${hint}`]))
  const outcome = failed === 0 ? 'nothing that a backup needs is missing' : `${failed} of ${items.length} checks failed`
  return {
    json: { component: component.name, verdict: failed === 0 ? 'passed' : 'failed', checks: items },
    text: [formatTable(['VERDICT', 'CHECK', 'EXPECTED', 'FOUND'], rows), ...hints, outcome].join('\n'),
    exitStatus: failed === 0 ? 0 : 1,
  }
}

/** A repository that does not open is a finding, not the end of the check's answer. */
async function openForCheck(context: Context): Promise<{ item: CheckItem; repository?: Repository }> {
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
