import { Command, CommanderError, Option } from 'commander'
import { register as registerHold } from './cli/hold.ts'
import { register as registerCheck } from './cli/check.ts'
import { register as registerRebuild } from './cli/rebuild.ts'
import { register as registerActivity } from './cli/activity.ts'
import { register as registerGenerate } from './cli/generate.ts'
import { register as registerLost } from './cli/lost.ts'
import { register as registerMessages } from './cli/messages.ts'
import { register as registerServe } from './cli/serve.ts'
import { register as registerToken } from './cli/token.ts'
import { register as registerTopics } from './cli/topics.ts'
import { HOME_DEFAULT } from './cli/options.ts'
import { CannotRun } from './refusal.ts'

// Exit status: 0 done, and where something is judged, good; 1 failed, or judged bad; 2 could not run, and nothing was touched.

const program = new Command('hospital')
  .description(
    'The reference hospital: several facilities on one PostgreSQL, event-sourced, with FHIR, files and outbound messages.',
  )
  .addOption(
    new Option('--home <directory>', 'where its files and its embedded database lie').env('HOSPITAL_HOME').default(HOME_DEFAULT),
  )
  .addOption(new Option('--database <url>', 'a PostgreSQL 15 or later, instead of the embedded one').env('HOSPITAL_DATABASE_URL'))
  .exitOverride()
for (const register of [
  registerServe,
  registerToken,
  registerTopics,
  registerHold,
  registerMessages,
  registerRebuild,
  registerCheck,
  registerGenerate,
  registerActivity,
  registerLost,
])
  register(program)

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = exitStatus(error)
}

function exitStatus(error: unknown): number {
  // commander has printed it.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (error instanceof CannotRun) {
    process.stderr.write(`hospital: ${error.message}\n${error.hint === undefined ? '' : `  hint: ${error.hint}\n`}`)
    return 2
  }
  process.stderr.write(`hospital: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  return 1
}
