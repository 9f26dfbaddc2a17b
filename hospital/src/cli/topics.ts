import { InvalidArgumentError, Option, type Command } from 'commander'
import { publishTopics } from '../topics/publish.ts'
import { sinkOpener, type TopicPlace } from '../topics/open-sink.ts'
import { acknowledgeAhead, topicsStatus, type TopicsStatus } from '../topics/status.ts'
import { openPlace, toldToEnd, wholeNumber, type Place } from './options.ts'

interface TopicsOptions extends Place, TopicPlace {
  readonly json: boolean
  readonly by: string
  readonly untilCaughtUp: boolean
  readonly batchEvents?: number
}

const YEAR_MS = 365.25 * 86_400_000

export function register(program: Command): void {
  const topics = program.command('topics').description('the topics to which events are published')
  withTopicPlace(topics.command('status'))
    .description(
      'how far each topic is, its retention as declared and as it is, and records that are ahead of the database; exit 1 when something is wrong',
    )
    .option('--json', 'as JSON', false)
    .action(async (_options: object, command: Command) => status(command.optsWithGlobals<TopicsOptions>()))
  withTopicPlace(topics.command('publish'))
    .description('publish events until told to end, without the rest of the service')
    .option('--until-caught-up', 'end when everything is published', false)
    .option('--batch-events <number>', 'how many are published at once, at most', wholeNumber(1, 10_000))
    .action(async (_options: object, command: Command) => publish(command.optsWithGlobals<TopicsOptions>()))
  topics
    .command('acknowledge')
    .description('somebody has dealt with the records that are ahead of the database: they are no longer reported')
    .requiredOption('--by <name>', 'who has')
    .action(async (_options: object, command: Command) => {
      const options = command.optsWithGlobals<TopicsOptions>()
      await using place = await openPlace(options)
      const records = await acknowledgeAhead(place.connectionString, options.by)
      process.stdout.write(`${records} records acknowledged by ${options.by}\n`)
    })
}

/** Adds the options that say where topics are. */
export function withTopicPlace(command: Command): Command {
  return command
    .addOption(
      new Option('--kafka <brokers>', 'publish to Kafka at host:port,host:port; to a table without it')
        .env('HOSPITAL_KAFKA')
        .argParser(brokersIn),
    )
    .addOption(
      new Option('--topic-prefix <text>', "before each topic's name")
        .env('HOSPITAL_TOPIC_PREFIX')
        .default('hospital.')
        .argParser(prefixIn),
    )
}

function brokersIn(text: string): readonly string[] {
  const brokers = text.split(',').map((each) => each.trim())
  if (brokers.every((each) => /^[\w.-]+:\d{1,5}$/.test(each))) return brokers
  throw new InvalidArgumentError('host:port is wanted, several with commas between them.')
}

function prefixIn(text: string): string {
  // Kafka's names are 249 characters at most.
  if (/^[\w.-]{0,200}$/.test(text)) return text
  throw new InvalidArgumentError('letters, digits, ".", "_" and "-" are wanted.')
}

async function publish(options: TopicsOptions): Promise<void> {
  await using place = await openPlace(options)
  using ended = toldToEnd()
  await publishTopics({
    connectionString: place.connectionString,
    openSink: sinkOpener(options),
    signal: ended.signal,
    report: (line) => process.stderr.write(`${line}\n`),
    untilCaughtUp: options.untilCaughtUp,
    batchEvents: options.batchEvents,
  })
}

async function status(options: TopicsOptions): Promise<void> {
  await using place = await openPlace(options)
  const found = await topicsStatus({ connectionString: place.connectionString, openSink: sinkOpener(options) })
  process.stdout.write(options.json ? `${JSON.stringify(found, bigIntAsText, 2)}\n` : describe(found))
  if (!found.good) process.exitCode = 1
}

function describe({ place, position, behind, topics, ahead, good }: TopicsStatus): string {
  const lines = [`${place}: the newest event is at position ${position}; ${behind} events are not published yet`, '']
  for (const { name, partitions, records, settings, differing } of topics) {
    const declared = years(settings.declared['retention.ms'])
    const actual = settings.actual === null ? 'is not there' : years(settings.actual['retention.ms'])
    const wrong = differing.length === 0 ? '' : `  DIFFERS: ${differing.join(', ')}`
    lines.push(
      `${name.padEnd(24)} ${partitions} partitions ${String(records).padStart(10)} records  kept ${declared}, is ${actual}${wrong}`,
    )
  }
  for (const each of ahead) {
    lines.push(
      '',
      `AHEAD OF THE DATABASE: ${each.topic}/${each.partition} has ${each.records} records of events that the database does not have,`,
      `  offsets ${each.firstOffset} to ${each.lastOffset}, positions ${each.firstPosition} to ${each.lastPosition}, found ${each.detectedAt.toISOString()}`,
      `  events ${each.ids.join(', ')}${each.records > each.ids.length ? ' ...' : ''}`,
    )
  }
  if (ahead.length > 0) {
    lines.push(
      '',
      'The database was restored to an instant before them. Consumers tell them from newer events by their ids; the table records_ahead',
    )
    lines.push('names all. When they are dealt with: hospital topics acknowledge --by NAME')
  }
  return `${lines.join('\n')}\n\n${good ? 'good' : 'NOT GOOD'}\n`
}

function years(ms: string | null | undefined): string {
  return ms === null || ms === undefined ? 'not set' : `${Math.round((Number(ms) / YEAR_MS) * 100) / 100} years`
}

function bigIntAsText(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}
