import { InvalidArgumentError, type Command } from 'commander'
import { setFlagsFromString } from 'node:v8'
import { generate } from '../generator/generate.ts'
import { makePlace, wholeNumber, type Place } from './options.ts'

interface GenerateCommandOptions extends Place {
  readonly facilities: number
  readonly patients: number
  readonly seed: number
  readonly until: Date
}

/** Fixed, not the clock: the same command gives the same hospital, whenever it runs. */
const UNTIL_DEFAULT = '2026-01-01T00:00:00Z'
const PATIENTS_MAX = 10_000_000
const FACILITIES_MAX = 10_000

export function register(program: Command): void {
  program
    .command('generate')
    .description('fill an empty hospital: facilities, patients and three years of their history, the same for the same seed')
    .option('--facilities <number>', 'how many facilities', wholeNumber(1, FACILITIES_MAX), 5)
    .option('--patients <number>', 'how many patients', wholeNumber(0, PATIENTS_MAX), 20_000)
    .option('--seed <number>', 'what the rest follows from', wholeNumber(0), 1)
    .option('--until <time>', 'where the history ends', parseTime, new Date(UNTIL_DEFAULT))
    .action(async (_options: object, command: Command) => run(command.optsWithGlobals<GenerateCommandOptions>()))
}

async function run({ until, ...options }: GenerateCommandOptions): Promise<void> {
  // Nearly all that a history is made of is garbage at once. V8 would let 150 MB of it lie before it looks.
  setFlagsFromString('--semi-space-growth-factor=1')
  await using place = await makePlace(options)
  const { connectionString, filesDirectory } = place
  const begin = performance.now()
  const size = { facilities: options.facilities, patients: options.patients, seed: options.seed, untilMs: until.getTime() }
  const { events, documents, digest } = await generate({ ...size, connectionString, filesDirectory })
  const seconds = ((performance.now() - begin) / 1000).toFixed(1)
  process.stdout.write(
    `seed ${options.seed}: ${options.facilities} facilities, ${options.patients} patients, ${events} events and ${documents} documents ` +
      `until ${until.toISOString()} in ${seconds} s\nsha256 of their history: ${digest}\n`,
  )
}

function parseTime(text: string): Date {
  const time = new Date(text)
  if (!Number.isNaN(time.getTime()) && /^\d{4}-\d\d-\d\d/.test(text)) return time
  throw new InvalidArgumentError('a date or a time is wanted, as 2026-01-01T00:00:00Z.')
}
