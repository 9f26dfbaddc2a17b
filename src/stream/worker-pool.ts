import { Worker, type TransferListItem } from 'node:worker_threads'
import { Failure, type FailureCode } from '../errors.ts'

/** Jobs that one thread has at once: the next one waits there while the answer to the last travels. */
const JOBS_PER_WORKER = 2

export type WorkerReply<Result> =
  | { readonly id: number; readonly kind: 'result'; readonly result: Result }
  | {
      readonly id: number
      readonly kind: 'failure'
      readonly code: FailureCode
      readonly message: string
      readonly hint?: string
    }
  | { readonly id: number; readonly kind: 'bug'; readonly message: string; readonly stack: string }

interface Pending<Result> {
  readonly resolve: (result: Result) => void
  readonly reject: (error: Error) => void
}

interface PoolThread<Result> {
  readonly worker: Worker
  readonly pending: Map<number, Pending<Result>>
}

/** Threads that do one kind of job. `run` waits for a free place, so that callers need no queue of their own. Close it. */
export class WorkerPool<Job, Result> {
  readonly #threads: PoolThread<Result>[]
  readonly #waiting: (() => void)[] = []
  #nextId = 0
  #failure: Error | undefined

  constructor(options: { script: URL; size: number; workerData: unknown }) {
    this.#threads = Array.from({ length: options.size }, () => this.#start(options))
  }

  /** The number of jobs that are worked on, or wait in a thread, when all are busy. */
  get capacity(): number {
    return this.#threads.length * JOBS_PER_WORKER
  }

  /** Runs a job on the least busy thread. Throws what the job threw: a Failure with its code, or a bug. */
  async run(job: Job, transfer: readonly TransferListItem[] = []): Promise<Result> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure
      const thread = this.#threads.reduce((least, other) => (other.pending.size < least.pending.size ? other : least))
      if (thread.pending.size < JOBS_PER_WORKER) return await this.#send(thread, job, transfer)
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }

  /** Runs one job on every thread: what a thread holds (an open pack) is ended by it. Call it when nothing else runs. */
  async runOnEach(job: Job): Promise<Result[]> {
    return await Promise.all(this.#threads.map((thread) => this.#send(thread, job, [])))
  }

  async close(): Promise<void> {
    this.#fail(new Error('the pool of threads was closed'))
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()))
  }

  #send(thread: PoolThread<Result>, job: Job, transfer: readonly TransferListItem[]): Promise<Result> {
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      thread.pending.set(id, { resolve, reject })
      thread.worker.postMessage({ id, job }, transfer)
    })
  }

  #start(options: { script: URL; workerData: unknown }): PoolThread<Result> {
    const worker = new Worker(options.script, { workerData: options.workerData })
    const thread: PoolThread<Result> = { worker, pending: new Map() }
    worker.on('message', (reply: WorkerReply<Result>) => {
      const pending = thread.pending.get(reply.id)
      thread.pending.delete(reply.id)
      this.#waiting.shift()?.()
      if (reply.kind === 'result') pending?.resolve(reply.result)
      else pending?.reject(replyError(reply))
    })
    worker.on('error', (error) => this.#fail(error instanceof Error ? error : new Error(String(error))))
    worker.on('exit', (code) => this.#fail(new Error(`a worker thread ended early with status ${code}`)))
    return thread
  }

  #fail(error: Error): void {
    this.#failure ??= error
    for (const { pending } of this.#threads ?? []) {
      for (const { reject } of pending.values()) reject(this.#failure)
      pending.clear()
    }
    for (const wake of this.#waiting.splice(0)) wake()
  }
}

function replyError(reply: Exclude<WorkerReply<never>, { kind: 'result' }>): Error {
  if (reply.kind === 'failure')
    return new Failure(reply.code, reply.message, reply.hint === undefined ? {} : { hint: reply.hint })
  const error = new Error(reply.message)
  error.stack = reply.stack
  return error
}
