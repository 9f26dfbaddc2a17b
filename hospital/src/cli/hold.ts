import type { Command } from 'commander'
import type { Transaction } from '../database/database.ts'
import { engageHold, releaseHold, type Hold } from '../messages/hold.ts'
import { inTheNameOf, type Person } from './person.ts'

/** `hospital hold` and `hospital release`. */
export function register(program: Command): void {
  program
    .command('hold')
    .description('let nothing leave the hospital, until a named person releases it')
    .requiredOption('--reason <text>', 'why')
    .requiredOption('--by <name>', 'who says so')
    .action(async (_options: object, command: Command) => {
      const options = command.optsWithGlobals<Person>()
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
      const options = command.optsWithGlobals<Person>()
      const { by: person, reason } = options
      const given = { person, ...(reason === undefined ? {} : { reason }) }
      const hold = await change(options, async (transaction) => releaseHold(transaction, given))
      process.stdout.write(`released by ${hold.person} at ${hold.at.toISOString()}\n`)
    })
}

async function change(options: Person, work: (transaction: Transaction) => Promise<Hold>): Promise<Hold> {
  return await inTheNameOf(options, async (database) => database.transaction({ kind: 'worker', actor: options.by }, work))
}
