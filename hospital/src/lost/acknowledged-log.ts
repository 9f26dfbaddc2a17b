import assert from 'node:assert'
import { createReadStream } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import { CannotRun } from '../refusal.ts'

// The log of acknowledged writes: one line of JSON for each write that the hospital has confirmed, in the order of confirmation. It lies where the
// hospital's own state does not, so that it tells afterwards what a recovery has lost.

/** What the hospital answered when it had committed a write. */
export interface AcknowledgedWrite {
  readonly facility: string
  /** The id of the patient whom it is about. */
  readonly patient: string
  readonly type: string
  readonly id: string
  readonly version: number
  /** meta.lastUpdated: after a recovery another write may have got this version, but not at this time. */
  readonly at: string
  readonly acknowledgedAt: string
}

const line = z.object({
  facility: z.string().min(1),
  patient: z.string(),
  type: z.string().regex(/^[A-Z][A-Za-z]+$/),
  id: z.string().regex(/^[A-Za-z0-9.-]{1,64}$/),
  version: z.int().positive(),
  at: z.iso.datetime({ offset: true }),
  acknowledgedAt: z.iso.datetime({ offset: true }),
})

/** Appends to a log. What `add` has returned for is on disk, whatever is killed. */
export class AcknowledgedLog implements AsyncDisposable {
  readonly #file: FileHandle
  #waiting: AcknowledgedWrite[] = []
  #writing: Promise<void> | undefined
  #next: Promise<void> | undefined

  private constructor(file: FileHandle) {
    this.#file = file
  }

  /** Opens the log behind what is there. A last line that a kill has torn is ended, so that the next one stands alone. */
  static async open(path: string): Promise<AcknowledgedLog> {
    const file = await open(path, 'a+', 0o640).catch((cause: unknown) => {
      throw new CannotRun(`cannot write the log "${path}": ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    })
    const { size } = await file.stat()
    if (size > 0) {
      const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1)
      if (buffer[0] !== 0x0a) await file.appendFile('\n')
    }
    return new AcknowledgedLog(file)
  }

  /** One sync is for all that wait for it: those that come while one runs share the next. */
  async add(writes: readonly AcknowledgedWrite[]): Promise<void> {
    this.#waiting.push(...writes)
    this.#next ??= this.#afterRunning()
    await this.#next
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#next?.catch(() => undefined)
    await this.#writing?.catch(() => undefined)
    await this.#file.close()
  }

  async #afterRunning(): Promise<void> {
    await this.#writing?.catch(() => undefined)
    this.#next = undefined
    this.#writing = this.#flush()
    await this.#writing
  }

  async #flush(): Promise<void> {
    const writes = this.#waiting
    this.#waiting = []
    await this.#file.appendFile(writes.map((write) => `${JSON.stringify(write)}\n`).join(''))
    await this.#file.datasync()
  }
}

/** A line of a log, by its number, that says nothing: torn by a kill, or damaged. */
export interface TornLine {
  readonly number: number
  readonly isLast: boolean
}

/**
 * The writes of a log in batches. A line that a kill has torn was never acknowledged to anybody who waited for it, and is passed over, as is reported to
 * `onTorn`. Throws CannotRun when there is no such file.
 */
export async function* readAcknowledged(
  path: string,
  options: { readonly batch: number; readonly onTorn: (torn: TornLine) => void },
): AsyncGenerator<readonly AcknowledgedWrite[]> {
  assert(options.batch > 0)
  let batch: AcknowledgedWrite[] = []
  let torn: number | undefined
  let number = 0
  for await (const text of linesOf(path)) {
    number += 1
    if (torn !== undefined) options.onTorn({ number: torn, isLast: false })
    const write = parseLine(text)
    torn = write === undefined && text !== '' ? number : undefined
    if (write === undefined || batch.push(write) < options.batch) continue
    yield batch
    batch = []
  }
  if (torn !== undefined) options.onTorn({ number: torn, isLast: true })
  if (batch.length > 0) yield batch
}

async function* linesOf(path: string): AsyncGenerator<string> {
  try {
    yield* createInterface({ input: createReadStream(path, 'utf8'), crlfDelay: Infinity })
  } catch (cause) {
    throw new CannotRun(`cannot read the log "${path}": ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}

function parseLine(text: string): AcknowledgedWrite | undefined {
  try {
    return line.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}
