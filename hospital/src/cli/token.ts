import type { Command } from 'commander'
import pg from 'pg'
import { makeToken } from '../http/authentication.ts'
import { openPlace, type Place } from './options.ts'

export function register(program: Command): void {
  program
    .command('token <user>')
    .description('make a token with which this user may ask the service; it is printed once, and only its hash is kept')
    .action(async (user: string, _options: object, command: Command) => {
      await using place = await openPlace(command.optsWithGlobals<Place>())
      const admin = new pg.Client({ connectionString: place.connectionString })
      await admin.connect()
      try {
        process.stdout.write(`${await makeToken(admin, user)}\n`)
      } finally {
        await admin.end()
      }
    })
}
