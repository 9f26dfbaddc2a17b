import type { Command } from 'commander'
import { Database } from '../database/database.ts'
import { buildServer } from '../http/server.ts'
import { openPlace, wholeNumber, type Place } from './options.ts'

interface ServeOptions extends Place {
  readonly port: number
  readonly host: string
  readonly log: boolean
}

const PORT_DEFAULT = 8470

export function register(program: Command): void {
  program
    .command('serve')
    .description('run the service until it is told to end (SIGINT, SIGTERM)')
    .option('--port <number>', 'where it listens; 0 for any free port', wholeNumber(0, 65_535), PORT_DEFAULT)
    .option('--host <address>', 'the address it listens on', '127.0.0.1')
    .option('--log', 'a line for each request, to standard error', false)
    .action(async (_options: object, command: Command) => serve(command.optsWithGlobals<ServeOptions>()))
}

async function serve(options: ServeOptions): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const place = stack.use(await openPlace(options))
  const database = new Database({ connectionString: place.connectionString })
  stack.defer(async () => database.close())
  const server = await buildServer({ database, filesDirectory: place.filesDirectory, log: options.log })
  stack.defer(async () => server.close())
  const address = await server.listen({ port: options.port, host: options.host })
  process.stdout.write(`the hospital listens at ${address}\n`)
  await untilToldToEnd()
}

async function untilToldToEnd(): Promise<void> {
  await new Promise<void>((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => resolve())
  })
}
