import { systemClock } from '../../src/clock.ts'
import { streamSchema } from '../../src/protect/postgres/component.ts'
import { eventJson } from '../../src/protect/postgres/stream-event.ts'
import { streamWal } from '../../src/protect/postgres/stream.ts'
import { openRepository } from '../../src/repository/repository.ts'
import { Secret } from '../../src/secret.ts'
import { DirectoryStorage } from '../../src/storage/directory-storage.ts'

// A receiver in a process of its own, so that a test can kill it at any instant. It prints its events, one JSON a line.
//   receiver-process.ts <repository directory> <spool directory> <connection string>

const [repositoryDirectory = '', spoolDirectory = '', connectionString = ''] = process.argv.slice(2)
const storage = new DirectoryStorage(repositoryDirectory)
await storage.prepare()
const repository = await openRepository({ storage, passphrase: new Secret('test'), system: 'test' })
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())

await streamWal({
  repository,
  component: {
    name: 'db',
    connection: new Secret(connectionString),
    stream: streamSchema.parse({ synchronous: true, partialEverySeconds: 1 }),
  },
  spoolDirectory,
  clock: systemClock,
  signal: stop.signal,
  onEvent: (event) => {
    if (event.kind !== 'acknowledged') process.stdout.write(`${JSON.stringify(eventJson(event))}\n`)
  },
})
