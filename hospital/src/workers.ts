import type { Database } from './database/database.ts'
import { startCheckpoints } from './events/checkpoints.ts'
import { keepBeating } from './heartbeat/heartbeat.ts'
import { deliverMessages } from './messages/deliver.ts'
import { sinkOpener, type TopicPlace } from './topics/open-sink.ts'
import { publishTopics } from './topics/publish.ts'

/** What fails every second is said once a minute. */
const SAID_AGAIN_MS = 60_000

export interface WorkersOptions extends TopicPlace {
  readonly database: Database
  readonly connectionString: string
  readonly home: string
  readonly filesDirectory: string
  /** Which of them run. */
  readonly topics: boolean
  readonly messages: boolean
  readonly heartbeat: boolean
}

/** Starts what works beside the service; disposing of it ends that, and waits for it. Failures are lines on standard error, and are tried again. */
export function startWorkers(options: WorkersOptions): AsyncDisposable {
  const { database, connectionString, home, filesDirectory } = options
  const controller = new AbortController()
  const { signal } = controller
  const report = reporter((line) => process.stderr.write(line))
  const running: Promise<void>[] = []
  if (options.topics) running.push(publishTopics({ connectionString, openSink: sinkOpener(options), signal, report }))
  if (options.messages) running.push(deliverMessages({ database, home, signal, report }))
  if (options.heartbeat) running.push(keepBeating({ database, filesDirectory, signal, report }))
  const checkpoints = startCheckpoints(database, {
    onError: (error) => report(`checkpoints: ${error instanceof Error ? error.message : String(error)}`),
  })
  return {
    [Symbol.asyncDispose]: async () => {
      controller.abort()
      await Promise.all([...running, checkpoints[Symbol.asyncDispose]()])
    },
  }
}

function reporter(write: (line: string) => void): (line: string) => void {
  // By worker, which is what a line begins with.
  const said = new Map<string, { readonly line: string; readonly atMs: number }>()
  return (line) => {
    const worker = line.slice(0, line.indexOf(':'))
    const last = said.get(worker)
    const nowMs = performance.now()
    if (last?.line === line && nowMs - last.atMs < SAID_AGAIN_MS) return
    said.set(worker, { line, atMs: nowMs })
    write(`${new Date().toISOString()} ${line}\n`)
  }
}
