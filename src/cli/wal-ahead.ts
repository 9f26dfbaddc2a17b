import { openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { walAhead } from '../protect/postgres/wal-ahead.ts'
import { optionalText, type Verb } from './verb.ts'

/** What it could not fetch, the restore_command asks for itself, and gets the failure: nobody looks at this exit status. */
export const run: Verb = async (context, given) => {
  const [name] = given.args
  const planPath = optionalText(given, 'plan')
  const pid = Number(optionalText(given, 'while'))
  if (name === undefined || planPath === undefined || !Number.isInteger(pid) || pid <= 0) {
    throw new Failure(
      'ARGUMENTS_INVALID',
      'wal-ahead needs --plan, --while with the number of a process, and the name of a segment',
      {
        hint: 'it is called by the restore_command that "resus restore" writes',
      },
    )
  }
  const openRepository = async () => await openConfigured(await context.configuration(), context.warn)
  const { clock, signal } = context
  const itself = given.options.itself === true
  const fetched = await walAhead({ planPath, name, itself, pid, openRepository, clock, signal })
  return { json: { name, fetched }, text: '' }
}
