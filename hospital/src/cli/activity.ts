import { InvalidArgumentError, Option, type Command } from 'commander'
import { runActivity } from '../activity/run-activity.ts'
import { CannotRun } from '../refusal.ts'
import { wholeNumber } from './options.ts'

interface ActivityCommandOptions {
  readonly url: string
  readonly token?: readonly string[]
  readonly rate: number
  readonly log: string
  readonly seconds: number
  readonly seed: number
  readonly flat: boolean
  readonly giveUpAfter: number
}

const SECONDS_MAX = 100 * 365 * 86_400

export function register(program: Command): void {
  program
    .command('activity')
    .description('live clinical events through the HTTP API, with a log of what the hospital has acknowledged')
    .requiredOption('--url <url>', 'where the hospital listens, as http://127.0.0.1:8470', parseUrl)
    .addOption(
      new Option('--token <token>', "of a facility's clinician or clerk; one for each facility")
        .env('HOSPITAL_TOKENS')
        .argParser(collect),
    )
    .requiredOption('--log <file>', 'where the acknowledged writes are appended; keep it away from the hospital’s own disk')
    .option('--rate <number>', 'events a second, as the mean of a day', wholeNumber(1, 10_000), 50)
    .option('--flat', 'the same rate by day and by night', false)
    .option('--seconds <number>', 'for how long; until it is told to end if left out', wholeNumber(1, SECONDS_MAX), SECONDS_MAX)
    .option('--seed <number>', 'what happens follows from it', wholeNumber(0), 1)
    .option('--give-up-after <seconds>', 'how long the service may be away before this ends', wholeNumber(0, SECONDS_MAX), 300)
    .action(async (options: ActivityCommandOptions) => run(options))
}

async function run(options: ActivityCommandOptions): Promise<void> {
  if (options.token === undefined || options.token.length === 0) {
    throw new CannotRun('nobody acts: there is no token', {
      hint: 'give --token, or HOSPITAL_TOKENS; `hospital token USER` makes one',
    })
  }
  const told = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => told.abort())
  process.stderr.write(`seed ${options.seed}\n`)
  const { acknowledged, refused, unanswered, dropped, end } = await runActivity({
    url: options.url,
    tokens: options.token,
    rate: options.rate,
    isFlat: options.flat,
    logPath: options.log,
    seed: options.seed,
    secondsMax: options.seconds,
    giveUpAfterSeconds: options.giveUpAfter,
    signal: told.signal,
    say: (text) => process.stderr.write(`${text}\n`),
  })
  const refusals = Object.values(refused).reduce((sum, each) => sum + each, 0)
  process.stdout.write(
    `${end}: ${acknowledged} writes acknowledged, ${refusals} refused, ${unanswered} without an answer, ${dropped} not begun in time\n` +
      Object.entries(refused)
        .map(([text, count]) => `  ${count} x ${text}\n`)
        .join(''),
  )
}

/** In the environment, where the list of processes does not show them, several stand beside each other. */
function collect(tokens: string, before: readonly string[] = []): readonly string[] {
  return [...before, ...tokens.split(/\s+/).filter((each) => each !== '')]
}

function parseUrl(text: string): string {
  if (/^https?:\/\/[^/]/.test(text) && URL.canParse(text)) return text
  throw new InvalidArgumentError('an http or https URL is wanted.')
}
