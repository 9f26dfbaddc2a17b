import { stat } from 'node:fs/promises'
import type { ComponentConfiguration, Configuration } from '../../config/configuration.ts'
import { resolveComponent } from '../../config/open.ts'
import { formatSecretReference, resolveSecret, type SecretReference } from '../../config/secret-reference.ts'
import { Failure } from '../../errors.ts'
import { checkPostgres } from '../../protect/postgres/check.ts'
import { failed, judge, notProven, passed, type CheckItem, type Judgement } from '../../protect/postgres/check-item.ts'
import type { Repository } from '../../repository/repository.ts'
import { checkStorage, openForCheck, reportChecks } from '../checks.ts'
import type { Answer, Context } from '../verb.ts'
import { becomeConfigured } from './account.ts'

/** What is wrong with the server itself: all the more reason to have a backup of it. */
const BESIDE = ['collations', 'full_page_writes']
const GROUP_MAY_READ = 0o040
const OTHERS_MAY = 0o007
const OTHERS_MAY_CHANGE = 0o022

/** Looks at all that set-up makes, and changes nothing. Exit status 1 when one check fails. */
export async function validate(context: Context): Promise<Answer> {
  const items: CheckItem[] = []
  let configuration: Configuration | undefined
  items.push(
    await judge('configuration', 'a valid one', async () => {
      configuration = await context.configuration()
      return await judgeConfigurationFile(configuration)
    }),
  )
  if (configuration !== undefined) {
    await becomeConfigured(configuration, [])
    items.push(...(await checkConfigured(context, configuration)))
  }
  return reportChecks(items, { good: 'all that was checked is in place', json: { configuration: context.configPath } })
}

async function checkConfigured(context: Context, configuration: Configuration): Promise<CheckItem[]> {
  const secrets = [await checkSecret('passphrase', configuration.repository.key.passphrase)]
  for (const { name, connection } of configuration.components) {
    if (connection.kind !== 'text') secrets.push(await checkSecret(`connection of "${name}"`, connection))
  }
  const storage = await checkStorage(configuration, context)
  const { item, repository } = await openForCheck({ ...context, warn: () => undefined })
  const components: CheckItem[] = []
  for (const component of configuration.components) {
    components.push(...(await checkComponent(context, { configuration, component, repository })))
  }
  return [...secrets, ...storage, item, ...components]
}

/** Throws SERVER_SETTING when something that a backup needs is missing. */
export async function assertReady(run: {
  context: Context
  configuration: Configuration
  repository: Repository
}): Promise<void> {
  const { context, configuration, repository } = run
  const items = await checkStorage(configuration, context)
  for (const component of configuration.components)
    items.push(...(await checkComponent(context, { configuration, component, repository })))
  const failures = items.filter(({ verdict }) => verdict === 'failed')
  const missing = failures.filter(({ name }) => !BESIDE.some((each) => name.endsWith(each)))
  for (const each of failures.filter((item) => !missing.includes(item))) context.warn(`${each.name}: ${each.found}; ${each.hint}`)
  if (missing.length === 0) return
  const all = missing.map(({ name, found, hint }) => `\n  ${name}: ${found}${hint === '' ? '' : ` (${hint})`}`).join('')
  throw new Failure('SERVER_SETTING', `${missing.length} of ${items.length} checks failed:${all}`, {
    hint: 'correct that and run it again: what was done stays; "resus init --validate-only" shows all checks',
  })
}

async function checkComponent(
  context: Context,
  run: { configuration: Configuration; component: ComponentConfiguration; repository: Repository | undefined },
): Promise<CheckItem[]> {
  const { configuration, component, repository } = run
  const named = (item: CheckItem) =>
    configuration.components.length === 1 ? item : { ...item, name: `${component.name}: ${item.name}` }
  try {
    const resolved = await resolveComponent(component)
    const { signal } = context
    const items = await checkPostgres({ repository, component: resolved, stateDirectory: configuration.state, signal })
    return items.map(named)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const item = {
      name: 'server',
      expected: 'a connection',
      verdict: 'not proven',
      found: error.message,
      hint: error.hint ?? '',
    } as const
    return [named(item)]
  }
}

async function judgeConfigurationFile({ path }: Configuration): Promise<Judgement> {
  const { mode } = await stat(path)
  if ((mode & OTHERS_MAY_CHANGE) === 0) return passed(path)
  return failed(`${path}: others may change it`, `what it names is run and overwritten: chmod go-w ${path}`)
}

async function checkSecret(what: string, reference: SecretReference): Promise<CheckItem> {
  return await judge(`${what} can be read`, 'by this account alone', async () => {
    await resolveSecret(reference, `the ${what}`)
    const place = formatSecretReference(reference)
    if (reference.kind === 'env') return passed(place)
    const { mode } = await stat(reference.path)
    if ((mode & OTHERS_MAY) !== 0) return failed(`${place}: everybody may`, `chmod 600 ${reference.path}`)
    return (mode & GROUP_MAY_READ) === 0
      ? passed(place)
      : notProven(`${place}: its group may, too`, `chmod 600 ${reference.path}`)
  })
}
