import { parentPort, type TransferListItem } from 'node:worker_threads'
import { Failure } from '../errors.ts'

/** Inside a thread of a `WorkerPool`: does the jobs that come, one after the other. `transfer` names buffers of the result to hand over. */
export function serveJobs<Job, Result>(
  work: (job: Job) => Result | Promise<Result>,
  transfer: (result: Result) => TransferListItem[] = () => [],
): void {
  const port = parentPort
  if (port === null) throw new Error('this file is started as a worker thread')
  let last: Promise<void> = Promise.resolve()
  port.on('message', ({ id, job }: { id: number; job: Job }) => {
    last = last.then(async () => {
      try {
        const result = await work(job)
        port.postMessage({ id, kind: 'result', result }, transfer(result))
      } catch (error) {
        port.postMessage({ id, ...describe(error) })
      }
    })
  })
}

function describe(error: unknown) {
  if (error instanceof Failure) return { kind: 'failure', code: error.code, message: error.message, hint: error.hint }
  const bug = error instanceof Error ? error : new Error(String(error))
  return { kind: 'bug', message: bug.message, stack: bug.stack ?? '' }
}
