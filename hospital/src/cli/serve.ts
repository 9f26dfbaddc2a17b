import type { Command } from 'commander'
import type { FastifyInstance } from 'fastify'
import { Database } from '../database/database.ts'
import { buildServer } from '../http/server.ts'
import type { TopicPlace } from '../topics/open-sink.ts'
import { startWorkers } from '../workers.ts'
import { makePlace, toldToEnd, wholeNumber, type Place } from './options.ts'
import { withTopicPlace } from './topics.ts'

interface ServeOptions extends Place, TopicPlace {
  readonly port: number
  readonly host: string
  readonly log: boolean
  readonly topics: boolean
  readonly messages: boolean
  readonly heartbeat: boolean
}

/** How long a request may still take when the service is told to end. */
const CLOSE_GRACE_MS = 5000
const PORT_DEFAULT = 8470

export function register(program: Command): void {
  withTopicPlace(program.command('serve'))
    .description('run the service until it is told to end (SIGINT, SIGTERM)')
    .option('--port <number>', 'where it listens; 0 for any free port', wholeNumber(0, 65_535), PORT_DEFAULT)
    .option('--host <address>', 'the address it listens on', '127.0.0.1')
    .option('--no-topics', 'publish no events')
    .option('--no-messages', 'deliver no messages')
    .option('--no-heartbeat', 'do not beat')
    .option('--log', 'a line for each request, to standard error', false)
    .action(async (_options: object, command: Command) => serve(command.optsWithGlobals<ServeOptions>()))
}

async function serve(options: ServeOptions): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const place = stack.use(await makePlace(options))
  const database = new Database({ connectionString: place.connectionString })
  stack.defer(async () => database.close())
  const server = await buildServer({ database, filesDirectory: place.filesDirectory, log: options.log })
  stack.defer(async () => closeServer(server))
  const { connectionString, filesDirectory } = place
  stack.use(startWorkers({ ...options, database, connectionString, filesDirectory }))
  const address = await server.listen({ port: options.port, host: options.host })
  process.stdout.write(`the hospital listens at ${address}\n`)
  using ended = toldToEnd()
  if (!ended.signal.aborted) await new Promise((resolve) => ended.signal.addEventListener('abort', resolve, { once: true }))
}

/** Requests that run may end, for a while. A client may keep its connection open for longer than anybody waits. */
async function closeServer(server: FastifyInstance): Promise<void> {
  const impatient = setTimeout(() => server.server.closeAllConnections(), CLOSE_GRACE_MS)
  try {
    await server.close()
  } finally {
    clearTimeout(impatient)
  }
}
