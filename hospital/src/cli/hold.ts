import type { Command } from 'commander'
import { Database, type Transaction } from '../database/database.ts'
import { engageHold, releaseHold, type Hold } from '../messages/hold.ts'
import { CannotRun, Refusal } from '../refusal.ts'
import { openPlace, type Place } from './options.ts'

interface HoldOptions extends Place {
  readonly by: string
  readonly reason?: string
}

/** `hospital hold` and `hospital release`. */
export function register(program: Command): void {
  program
    .command('hold')
    .description('let nothing leave the hospital, until a named person releases it')
    .requiredOption('--reason <text>', 'why')
    .requiredOption('--by <name>', 'who says so')
    .action(async (_options: object, command: Command) => {
      const options = command.optsWithGlobals<HoldOptions>()
      const reason = options.reason ?? ''
      const hold = await change(options, async (transaction) => engageHold(transaction, { reason, person: options.by }))
      process.stdout.write(`held since ${hold.at.toISOString()}: ${hold.reason}\n`)
    })
  program
    .command('release')
    .description('let go what the hold has stopped')
    .requiredOption('--by <name>', 'who says so')
    .option('--reason <text>', 'why it may go now')
    .action(async (_options: object, command: Command) => {
      const options = command.optsWithGlobals<HoldOptions>()
      const { by: person, reason } = options
      const given = { person, ...(reason === undefined ? {} : { reason }) }
      const hold = await change(options, async (transaction) => releaseHold(transaction, given))
      process.stdout.write(`released by ${hold.person} at ${hold.at.toISOString()}\n`)
    })
}

async function change(options: HoldOptions, work: (transaction: Transaction) => Promise<Hold>): Promise<Hold> {
  for (const [name, value] of Object.entries({ '--by': options.by, '--reason': options.reason })) {
    if (value !== undefined && value.trim() === '') throw new CannotRun(`${name} is empty`)
  }
  await using place = await openPlace(options)
  const database = new Database({ connectionString: place.connectionString, connectionsMax: 1 })
  try {
    return await database.transaction({ kind: 'worker', actor: options.by }, work)
  } catch (error) {
    if (error instanceof Refusal && error.code === 'CONFLICT') throw new CannotRun(error.message, { cause: error })
    throw error
  } finally {
    await database.close()
  }
}
