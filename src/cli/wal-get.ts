import { openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { fetchFirstWal } from '../protect/postgres/wal-ahead.ts'
import { walGet } from '../protect/postgres/wal-get.ts'
import type { Repository } from '../repository/repository.ts'
import { optionalText, type Verb } from './verb.ts'

const EXIT_ABSENT = 90

/** Exit status 0: delivered. 90: proven absent by the plan. Everything else, whatever happened, must stop PostgreSQL (see program.ts). */
export const run: Verb = async (context, given) => {
  const [name, destination] = given.args
  const planPath = optionalText(given, 'plan')
  if (name === undefined || destination === undefined || planPath === undefined) {
    throw new Failure('ARGUMENTS_INVALID', 'wal-get needs --plan, the name of a WAL file and where to put it', {
      hint: 'it is called by the restore_command that "resus restore" writes',
    })
  }
  let opened: Promise<Repository> | undefined
  const open = async () => await openConfigured(await context.configuration(), context.warn)
  const openRepository = async () => await (opened ??= open())
  const outcome = await walGet({ planPath, name, destination, openRepository })
  if (given.options.first === true) await fetchFirstWal({ planPath, name, openRepository, signal: context.signal })
  return { json: { name, outcome }, text: '', exitStatus: outcome === 'delivered' ? 0 : EXIT_ABSENT }
}
