import { Command, CommanderError } from 'commander'
import { Failure } from '../errors.ts'
import { formatJson, reportError } from './output.ts'
import { createContext, interruptible, type Answer, type Context, type VerbDefinition } from './verb.ts'
import { VERBS } from './verbs.ts'

// The command line: parses, runs one verb, prints its answer, sets the exit status.

const EXIT_ARGUMENTS = 2
/** For PostgreSQL, statuses from 1 to 125 mean "not there", and it would promote: doubt must be above. */
const EXIT_DOUBT = 255
/** Longest that open handles may keep the process once its answer is out. */
const EXIT_GRACE_MS = 5000

const asked = process.argv.slice(2)
const json = asked.includes('--json')
/** For a log: whoever reads progress as documents, one a line, has the answer so, too. */
const oneLine = /(?:^| )--progress[ =]json(?: |$)/.test(asked.join(' '))
const isWalGet = asked.find((each) => !each.startsWith('-')) === 'wal-get'

try {
  process.exitCode = await runProgram()
} catch (error) {
  process.exitCode = isWalGet ? doubt(error) : exitStatusOf(error)
}
setTimeout(() => process.exit(), EXIT_GRACE_MS).unref()

async function runProgram(): Promise<number> {
  let status = 0
  const program = new Command('resus')
    .description("Resus brings a hospital's systems back: backup and disaster recovery of PostgreSQL.")
    .exitOverride()
    .configureOutput({ writeErr: (text) => (json ? undefined : process.stderr.write(text.replace(/^error: /, 'resus: '))) })
    .showHelpAfterError('hint: "resus <verb> --help" explains a verb')
  for (const definition of VERBS) {
    addVerb(program, definition, async (answer) => {
      status = await print(answer)
    })
  }
  await program.parseAsync(asked, { from: 'user' })
  return status
}

function addVerb(program: Command, definition: VerbDefinition, done: (answer: Answer) => Promise<void>): void {
  const command = program.command(definition.name).description(definition.summary)
  for (const [syntax, description] of definition.args ?? []) command.argument(syntax, description)
  for (const [flags, description, repeatable] of definition.options ?? []) {
    if (repeatable === undefined) command.option(flags, description)
    else command.option<readonly string[] | undefined>(flags, description, collect)
  }
  command.option('--config <path>', 'the configuration', process.env.RESUS_CONFIG ?? 'resus.yaml')
  command.option('--json', 'print one JSON document on standard output, and nothing else there')
  command.option('--progress <form>', 'on standard error: text, or json, one document a line', 'text')
  command.action(async () => {
    const options = command.opts<Record<string, unknown>>()
    const context = createContext({
      configPath: String(options.config),
      configNamed: process.env.RESUS_CONFIG !== undefined || command.getOptionValueSource('config') === 'cli',
      signal: interruptible(),
      progress: String(options.progress),
    })
    const { run } = await definition.load()
    await done(await runVerb(context, () => run(context, { args: command.processedArgs.filter(isText), options })))
  })
}

function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value]
}

async function runVerb(context: Context, run: () => Promise<Answer>): Promise<Answer> {
  try {
    return await run()
  } catch (error) {
    // Work that was told to end may end with any error of its own; the reason is the one that the signal has.
    if (context.signal.aborted && isAbort(error)) throw context.signal.reason
    throw error
  } finally {
    context.progress.clear()
  }
}

async function print(answer: Answer): Promise<number> {
  const text = json ? formatJson(answer.json, { oneLine }) : answer.text
  if (text !== '') await new Promise<void>((resolve) => process.stdout.write(`${text}\n`, () => resolve()))
  return answer.exitStatus ?? 0
}

function exitStatusOf(error: unknown): number {
  if (!(error instanceof CommanderError)) return reportError(error, { json, oneLine })
  if (error.exitCode === 0) return 0
  // Commander has printed it, as text.
  const failure = new Failure('ARGUMENTS_INVALID', error.message.replace(/^error: /, ''), {
    hint: '"resus <verb> --help" explains a verb',
  })
  if (json) reportError(failure, { json, oneLine })
  return EXIT_ARGUMENTS
}

function doubt(error: unknown): number {
  const status = exitStatusOf(error)
  return error instanceof CommanderError && status === 0 ? 0 : EXIT_DOUBT
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || (error instanceof Failure && error.code === 'INTERRUPTED'))
}

function isText(value: unknown): value is string {
  return typeof value === 'string'
}
