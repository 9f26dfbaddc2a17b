import { InvalidArgumentError, Option, type Command } from 'commander'
import { Database } from '../database/database.ts'
import { readHold } from '../messages/hold.ts'
import { MESSAGE_KINDS, type MessageKind } from '../messages/message.ts'
import { reportMessages, requeueFailed, type MessageReport } from '../messages/requeue.ts'
import { openPlace, type Place } from './options.ts'
import { inTheNameOf, type Person } from './person.ts'

interface MessagesOptions extends Place {
  readonly json: boolean
}

interface RequeueCommandOptions extends Person {
  readonly kind?: MessageKind
  readonly id?: readonly string[]
}

const LISTED_MAX = 100
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** `hospital messages` and `hospital messages requeue`. */
export function register(program: Command): void {
  const messages = program
    .command('messages')
    .description('what is queued, delivered and failed of what leaves the hospital, and why it failed')
    .option('--json', 'print one JSON object', false)
    .action(async (_options: object, command: Command) => list(command.optsWithGlobals<MessagesOptions>()))
  messages
    .command('requeue')
    .description('queue failed messages again, all of them or these; what is held stays so')
    .requiredOption('--by <name>', 'who says so')
    .option('--reason <text>', 'why they may succeed now')
    .addOption(new Option('--kind <kind>', 'of this kind').choices(MESSAGE_KINDS))
    .addOption(new Option('--id <id>', 'this one; may be given several times').argParser(collectIds))
    .action(async (_options: object, command: Command) => requeue(command.optsWithGlobals<RequeueCommandOptions>()))
}

async function list(options: MessagesOptions): Promise<void> {
  await using place = await openPlace(options)
  const database = new Database({ connectionString: place.connectionString, connectionsMax: 1 })
  try {
    const report = await database.transaction({ kind: 'worker', actor: 'hospital messages' }, async (transaction) =>
      reportMessages(transaction, LISTED_MAX),
    )
    process.stdout.write(options.json ? `${JSON.stringify(report, undefined, 2)}\n` : printed(report))
  } finally {
    await database.close()
  }
}

function printed({ counts, failed }: MessageReport): string {
  const all = counts.reduce((sum, { status, messages }) => sum + (status === 'failed' ? messages : 0), 0)
  const lines = [
    ...counts.map(({ kind, status, messages }) => `${kind.padEnd(18)}${status.padEnd(11)}${String(messages).padStart(8)}`),
    ...(failed.length > 0 ? [''] : []),
    ...failed.map(
      ({ id, facility, kind, attempts, failedAt, reason }) =>
        `${id}  ${kind} of ${facility}, failed ${failedAt.toISOString()} at attempt ${attempts}: ${reason ?? 'no reason is kept'}`,
    ),
    ...(all > failed.length ? [`and ${all - failed.length} more`] : []),
    all === 0 ? 'none has failed' : `${all} failed; \`hospital messages requeue --by NAME\` queues them again`,
  ]
  return `${lines.join('\n')}\n`
}

async function requeue(options: RequeueCommandOptions): Promise<void> {
  const { by: person, kind, id: ids, reason } = options
  const given = { ...(kind && { kind }), ...(ids && { ids }), ...(reason === undefined ? {} : { reason }) }
  const { requeued, isHeld } = await inTheNameOf(options, async (database) => ({
    requeued: await requeueFailed(database, { person, ...given }),
    isHeld: (await database.transaction({ kind: 'worker', actor: person }, readHold))?.held === true,
  }))
  const waits = isHeld && requeued > 0 ? '; nothing leaves the hospital until `hospital release`' : ''
  process.stdout.write(`${requeued} messages requeued by ${person}${waits}\n`)
}

function collectIds(id: string, before: readonly string[] = []): readonly string[] {
  if (!UUID.test(id)) throw new InvalidArgumentError('the id of a message is wanted, as `hospital messages` shows it.')
  return [...before, id]
}
