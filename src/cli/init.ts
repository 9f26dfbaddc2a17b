import { configuredAccess, configuredStorage } from '../config/open.ts'
import { initRepository } from '../repository/repository.ts'
import type { Verb } from './verb.ts'

export const run: Verb = async (context) => {
  const configuration = await context.configuration()
  const access = await configuredAccess(configuration, context.warn)
  await configuredStorage(configuration).prepare()
  const { repository, created } = await initRepository(access, { clock: context.clock })
  const where = repository.storage.description
  return {
    json: { repository: repository.id, system: repository.system, storage: where, created },
    text: created
      ? `made the repository of "${repository.system}" in ${where}\nKeep the passphrase where a disaster that takes this machine does not take it too: without it nothing can be restored.`
      : `the repository of "${repository.system}" in ${where} is there already, and the passphrase opens it`,
  }
}
