import { resolve } from 'node:path'
import { loadConfiguration } from '../config/configuration.ts'
import { configuredAccess, configuredStorage } from '../config/open.ts'
import { initRepository } from '../repository/repository.ts'
import { DEFAULT_CONFIG } from './init/places.ts'
import { asksForSetup, readInitOptions } from './init/options.ts'
import { readUnfinished } from './init/unfinished.ts'
import { isThere } from './init/write-once.ts'
import type { Answer, Context, Verb } from './verb.ts'

/**
 * Without a configuration: sets everything up. With one: goes on, when a mode or `--yes` says so or a set-up did not end; else only makes the
 * repository, as scripts have it.
 */
export const run: Verb = async (called, given) => {
  const options = readInitOptions(given)
  const context = await whereSetUp(called)
  if (options.mode === 'validate-only') {
    const { validate } = await import('./init/validate.ts')
    return await validate(context)
  }
  const exists = await isThere(context.configPath)
  const unfinished = exists ? await readUnfinished(context.configPath) : undefined
  if (exists && unfinished === undefined && !asksForSetup(options)) return await makeRepository(context)
  const { setUp } = await import('./init/set-up.ts')
  return await setUp({
    context,
    options,
    mode: options.mode ?? (unfinished === 'backup-only' ? unfinished : 'comprehensive'),
    configPath: exists || context.configNamed ? resolve(context.configPath) : undefined,
    exists,
  })
}

/** Where nothing is named and nothing is here, what an earlier run has set up in the usual place is gone on from. */
async function whereSetUp(context: Context): Promise<Context> {
  if (context.configNamed || (await isThere(context.configPath)) || !(await isThere(DEFAULT_CONFIG))) return context
  context.progress.print(`the configuration is ${DEFAULT_CONFIG}`)
  return { ...context, configPath: DEFAULT_CONFIG, configuration: async () => await loadConfiguration(DEFAULT_CONFIG) }
}

async function makeRepository(context: Context): Promise<Answer> {
  const configuration = await context.configuration()
  const access = await configuredAccess(configuration, context.warn)
  await configuredStorage(configuration).prepare()
  const { repository, created } = await initRepository(access, { clock: context.clock })
  const where = repository.storage.description
  return {
    json: { repository: repository.id, system: repository.system, storage: where, created },
    text: created
      ? `made the repository of "${repository.system}" in ${where}\nKeep the passphrase where a disaster that takes this machine does not take it too: without it nothing can be restored.\n"resus init --comprehensive" goes on: server, recovery sheet, first backup, and its proof.`
      : `the repository of "${repository.system}" in ${where} is there already, and the passphrase opens it`,
  }
}
