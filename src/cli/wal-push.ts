import { resolve } from 'node:path'
import { configuredComponent, openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { pushReady } from '../protect/postgres/wal-push-ready.ts'
import { optionalText, type Verb } from './verb.ts'

/**
 * Exit status 0 only when the WAL is durable in the repository. Every failure is 1 or 2, on which PostgreSQL keeps the file and asks again;
 * above 125 it would also restart its archiver each time.
 */
export const run: Verb = async (context, given) => {
  const [path] = given.args
  if (path === undefined) throw new Failure('ARGUMENTS_INVALID', 'wal-push needs the path of a WAL file (%p)')
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, optionalText(given, 'component'))
  const repository = await openConfigured(configuration, context.warn)
  const { clock, signal } = context
  const pushed = await pushReady({ repository, component, path: resolve(path), clock, signal })
  return { json: { path, ...pushed }, text: '' }
}
