import { dirname } from 'node:path'
import { loadConfiguration, type Configuration } from '../../config/configuration.ts'
import { configuredAccess, configuredStorage, resolveComponent } from '../../config/open.ts'
import { formatSecretReference } from '../../config/secret-reference.ts'
import { Failure } from '../../errors.ts'
import { initRepository, type Repository } from '../../repository/repository.ts'
import { formatDuration } from '../output.ts'
import type { Answer, Context } from '../verb.ts'
import { becomeAccount, becomeConfigured } from './account.ts'
import { chooseServer, DEFAULT_COMPONENT, DEFAULT_SLOT, makeChoices, type Choices } from './choices.ts'
import { Dialogue } from './dialogue.ts'
import { assertPassphraseKnown, chooseConnection, writeFiles } from './files.ts'
import type { InitMode, InitOptions } from './options.ts'
import { DEFAULT_CONFIG, placesOf } from './places.ts'
import { proveNewest, takeFirstBackup, type Proven } from './protection.ts'
import { assertLetIn, describePlan, planServer, runServerPlan, type ServerPlan, type SetupTarget } from './server-setup.ts'
import { assertReady } from './validate.ts'
import { writeServerSettings, writeSheet } from './sheet-files.ts'
import { summary } from './summary.ts'
import { clearUnfinished } from './unfinished.ts'

export interface SetUp {
  readonly context: Context
  readonly options: InitOptions
  readonly mode: Exclude<InitMode, 'validate-only'>
  /** Undefined when the command line and the environment name none, and none is where they would look. */
  readonly configPath: string | undefined
  /** Whether there is a configuration. */
  readonly exists: boolean
}

/** What was done, for the answer. */
export interface StepTaken {
  readonly step: string
  readonly seconds: number
}

/**
 * From a server to one that is protected and proven, or as much of it as the mode says. Each step looks first and makes what is missing, durable before the
 * next begins; so it may be killed at any moment and run again.
 */
export async function setUp(run: SetUp): Promise<Answer> {
  using dialogue = new Dialogue({ yes: run.options.yes, signal: run.context.signal })
  if (run.options.sqlOnly) return await showSql(run, dialogue)
  const steps = new Steps(run.context)
  const configuration = run.exists ? await goOn(run, dialogue, steps) : await begin(run, dialogue, steps)
  dialogue[Symbol.dispose]()
  const context: Context = { ...run.context, configPath: configuration.path, configuration: async () => configuration }

  const repository = await makeRepository(context, configuration, steps)
  if (run.mode !== 'dr-only') {
    await assertReady({ context, configuration, repository })
    steps.done('checked: nothing that a backup needs is missing')
  }
  const sheet = await writeSheet({ context, configuration, repository, withPassphrase: run.options.sheetWithPassphrase })
  steps.done(`${sheet.isNew ? 'wrote' : 'there already:'} the recovery sheet: ${sheet.path}`)
  const proofs: Proven[] = []
  let good = true
  for (const { name } of configuration.components) {
    if (run.mode !== 'dr-only') good = (await takeFirstBackup({ context, repository, component: name, steps })) && good
    if (run.mode !== 'backup-only') {
      const proven = await proveNewest({
        context,
        configuration,
        repository,
        component: name,
        steps,
        again: run.mode === 'dr-only',
      })
      proofs.push(proven)
      good &&= proven.verdict === 'verified'
    }
  }
  if (run.mode !== 'backup-only') await writeServerSettings(configuration, steps)
  await clearUnfinished(configuration.path)
  return summary({ mode: run.mode, configuration, repository, sheet, proofs, steps: steps.taken, good })
}

/** Tells each step when it is done. */
export class Steps {
  readonly #context: Context
  readonly #taken: StepTaken[] = []
  #sinceMs: number

  constructor(context: Context) {
    this.#context = context
    this.#sinceMs = context.clock.now()
  }

  get taken(): readonly StepTaken[] {
    return this.#taken
  }

  done(step: string): void {
    const now = this.#context.clock.now()
    const seconds = Math.max(0, now - this.#sinceMs) / 1000
    this.#sinceMs = now
    this.#taken.push({ step, seconds })
    this.#context.progress.print(`[${this.#taken.length}] ${step}${seconds < 1 ? '' : ` (${formatDuration(1000 * seconds)})`}`)
  }
}

/** Without a configuration. */
async function begin(run: SetUp, dialogue: Dialogue, steps: Steps): Promise<Configuration> {
  const { context, options, mode } = run
  if (mode === 'dr-only') {
    throw new Failure('CONFIG_UNREADABLE', `there is no configuration "${run.configPath ?? context.configPath}" to go on from`, {
      hint: 'run "resus init" first, or name the configuration with --config or RESUS_CONFIG',
    })
  }
  const choices = await makeChoices({ dialogue, options, configPath: run.configPath })
  const directories = [choices.configPath, choices.passphrasePath, choices.connectionPath].map((path) => dirname(path))
  await becomeAccount(choices.server.account, [...directories, choices.state, choices.storage])
  await assertPassphraseKnown(choices)
  const plan = await planServer(await newTarget(choices), { dialogue, options })
  await agree([plan], dialogue)
  await writeFiles(choices, { connection: plan.target.connection, mode, onDone: (text) => steps.done(text) })
  // Of two runs at once one has written the file: the password in it is the one that counts.
  const written = { ...plan, target: await newTarget(choices) }
  await runServerPlan(written, options, ({ what }) => steps.done(`made on the server: ${what}`))
  await assertLetIn(written, context.signal)
  return await loadConfiguration(choices.configPath)
}

/** With one. */
async function goOn(run: SetUp, dialogue: Dialogue, steps: Steps): Promise<Configuration> {
  const { context, options, mode } = run
  await becomeConfigured(await context.configuration())
  const configuration = await context.configuration()
  if (mode !== 'dr-only') {
    const plans: ServerPlan[] = []
    for (const target of await configuredTargets(configuration, context))
      plans.push(await planServer(target, { dialogue, options }))
    if (plans.some(({ missing }) => missing.length > 0)) await agree(plans, dialogue)
    for (const plan of plans) {
      await runServerPlan(plan, options, ({ what }) => steps.done(`made on the server: ${what}`))
      await assertLetIn(plan, context.signal)
    }
  }
  return configuration
}

/** Shows what would be done, and does nothing. */
async function showSql(run: SetUp, dialogue: Dialogue): Promise<Answer> {
  const { context, options } = run
  const plans: ServerPlan[] = []
  if (run.exists) {
    const configuration = await context.configuration()
    await becomeConfigured(configuration, [])
    for (const target of await configuredTargets(configuration, context))
      plans.push(await planServer(target, { dialogue, options }))
  } else {
    const server = await chooseServer({ dialogue, options })
    await becomeAccount(server.account, [])
    const { connectionPath } = placesOf(run.configPath ?? DEFAULT_CONFIG, options)
    const component = options.component ?? DEFAULT_COMPONENT
    const target = await newTarget({ server, connectionPath, component, slot: DEFAULT_SLOT })
    plans.push(await planServer(target, { dialogue, options }))
  }
  const sql = plans.flatMap(({ missing }) => missing.flatMap(({ statements }) => statements))
  return { json: { sql, there: plans.flatMap(({ there }) => there) }, text: plans.map(describePlan).join('\n\n') }
}

async function agree(plans: readonly ServerPlan[], dialogue: Dialogue): Promise<void> {
  for (const plan of plans) dialogue.show(describePlan(plan))
  if (plans.every(({ missing }) => missing.length === 0)) return
  const agreed = await dialogue.confirm({ text: 'Run this SQL now?', flag: '--yes', proposal: true })
  if (agreed) return
  throw new Failure('INTERRUPTED', 'the SQL was not run, and nothing was changed', {
    hint: 'let a superuser run it (--sql-only prints it), put the connection string into its file, and run "resus init" again',
  })
}

async function newTarget(choices: Pick<Choices, 'component' | 'slot' | 'server' | 'connectionPath'>): Promise<SetupTarget> {
  const { component, slot, server, connectionPath } = choices
  const place = { component, slot, dataDirectory: server.dataDirectory, connectionPlace: connectionPath }
  return { ...place, ...(await chooseConnection(choices)) }
}

async function configuredTargets({ components }: Configuration, context: Context): Promise<SetupTarget[]> {
  return await Promise.all(
    components.map(async (component) => {
      const { connection } = await resolveComponent(component, context.warn)
      const source = component.connection
      return {
        component: component.name,
        dataDirectory: component.dataDirectory,
        slot: component.stream.slot,
        connection,
        connectionPlace: source.kind === 'text' ? 'the configuration' : formatSecretReference(source),
        isNew: false,
      }
    }),
  )
}

async function makeRepository(context: Context, configuration: Configuration, steps: Steps): Promise<Repository> {
  const access = await configuredAccess(configuration, context.warn)
  await configuredStorage(configuration).prepare()
  const { repository, created } = await initRepository(access, { clock: context.clock })
  steps.done(
    `${created ? 'made' : 'there already, and the passphrase opens it:'} the repository in ${repository.storage.description}`,
  )
  return repository
}
