import { configuredComponent, resolveComponent } from '../config/open.ts'
import { checkPostgres } from '../protect/postgres/check.ts'
import { checkStorage, openForCheck, reportChecks } from './checks.ts'
import type { Verb } from './verb.ts'

export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, given.args[0])
  const { item, repository } = await openForCheck(context)
  const items = [item]
  if (repository !== undefined) {
    const resolved = await resolveComponent(component, context.warn)
    items.push(...(await checkStorage(configuration, context)))
    items.push(
      ...(await checkPostgres({ repository, component: resolved, stateDirectory: configuration.state, signal: context.signal })),
    )
  }
  return reportChecks(items, { good: 'nothing that a backup needs is missing', json: { component: component.name } })
}
