import { randomBytes } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { STORAGE_OPERATIONS, type StorageOperation } from '../storage/permissions.ts'
import { readObject, type Storage } from '../storage/storage.ts'
import { PROBE_PREFIX, randomId, timeName } from './layout.ts'

// A self-test of a storage, with an object that means nothing to anybody (docs/format.md, "Probes"): no key is needed, no repository has to be there, and no
// object of one is touched.

const PROBE_BYTES = 4096
/** A probe that is older was left by a test that was killed, or by a storage that refuses to delete. */
const LEFT_AFTER_MS = 3_600_000
/** Where deleting is refused, one is left a day, and not one an hour. */
const REUSED_FOR_MS = 24 * 3_600_000
const TIME = /^probe-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-/

/** What one operation gave. */
export interface ProbeFinding {
  readonly operation: StorageOperation
  readonly verdict: 'passed' | 'failed' | 'not proven'
  readonly found: string
}

/** Puts, reads, lists and deletes a probe, as a backup does with its objects, and takes away what earlier tests have left. Throws the signal's reason only. */
export async function probeStorage(storage: Storage, options: { clock: Clock; signal: AbortSignal }): Promise<ProbeFinding[]> {
  const probe = new Probe(storage, options)
  await probe.run()
  return STORAGE_OPERATIONS.map((operation) => probe.finding(operation))
}

class Probe {
  readonly #storage: Storage
  readonly #clock: Clock
  readonly #signal: AbortSignal
  readonly #findings = new Map<StorageOperation, ProbeFinding>()

  constructor(storage: Storage, { clock, signal }: { clock: Clock; signal: AbortSignal }) {
    this.#storage = storage
    this.#clock = clock
    this.#signal = signal
  }

  finding(operation: StorageOperation): ProbeFinding {
    return this.#findings.get(operation) ?? { operation, verdict: 'not proven', found: 'no probe to try it with' }
  }

  async run(): Promise<void> {
    const signal = this.#signal
    const left = await this.#try('list', async () => await this.#probes())
    const kept = await this.#clear(left ?? [])
    const name = kept ?? `${PROBE_PREFIX}${timeName(this.#clock.now())}-${randomId()}`
    const content = randomBytes(PROBE_BYTES)
    if (kept === undefined) {
      const put = await this.#try('put', async () => {
        await this.#storage.put(name, content, { signal })
        return true
      })
      if (put !== true) return
    } else this.#note('put', 'passed', `"${kept}" was put today, and cannot be deleted`)
    await this.#putOnce(name, kept === undefined ? content : undefined)
    await this.#read(name, kept === undefined ? content : undefined)
    if (left !== undefined) await this.#listed(name)
    await this.#delete(name)
  }

  async #probes(): Promise<string[]> {
    const names: string[] = []
    for await (const { key } of this.#storage.list(PROBE_PREFIX, { signal: this.#signal })) names.push(key)
    return names
  }

  /** Deletes what is left. Gives one of today that the storage refuses to delete: it serves again. */
  async #clear(names: readonly string[]): Promise<string | undefined> {
    const now = this.#clock.now()
    let kept: string | undefined
    for (const name of names) {
      const ageMs = now - putAtMs(name)
      if (ageMs < LEFT_AFTER_MS) continue
      const refused = await this.#storage.delete(name, { signal: this.#signal }).then(() => false, isFailure)
      if (refused && ageMs < REUSED_FOR_MS) kept = name
    }
    return kept
  }

  async #putOnce(name: string, content: Buffer | undefined): Promise<void> {
    try {
      await this.#storage.put(name, randomBytes(PROBE_BYTES), { signal: this.#signal })
    } catch (error) {
      if (!isFailure(error) || error.code !== 'OBJECT_EXISTS') return this.#failed('put once', error)
      const after = content === undefined ? undefined : await readObject(this.#storage, name).catch(() => undefined)
      if (after === undefined || after.equals(content!))
        return this.#note('put once', 'passed', 'a second put of one name is refused')
    }
    this.#note('put once', 'failed', 'a second put of one name REPLACES the first: no repository is safe here')
  }

  async #read(name: string, content: Buffer | undefined): Promise<void> {
    const whole = await this.#try('get', async () => {
      const pieces: Uint8Array[] = []
      for await (const piece of this.#storage.get(name, { signal: this.#signal })) pieces.push(piece)
      return Buffer.concat(pieces)
    })
    const range = { offset: 1000, length: 96 }
    const part = await this.#try('get range', async () => this.#storage.getRange(name, range, { signal: this.#signal }))
    const wanted = content ?? whole
    if (whole !== undefined && wanted?.equals(whole) !== true) this.#note('get', 'failed', 'another content than was put')
    const { offset, length } = range
    if (part !== undefined && wanted?.subarray(offset, offset + length).equals(part) !== true) {
      this.#note('get range', 'failed', 'another content than was put')
    }
  }

  async #listed(name: string): Promise<void> {
    const names = await this.#try('list', async () => await this.#probes())
    if (names !== undefined && !names.includes(name)) this.#note('list', 'failed', 'what was put is not listed')
  }

  /** Not a failure: who keeps a storage that refuses to delete is safer for it. But then somebody else has to make room. */
  async #delete(name: string): Promise<void> {
    try {
      await this.#storage.delete(name, { signal: this.#signal })
      this.#note('delete', 'passed', 'done')
    } catch (error) {
      if (!isFailure(error)) throw error
      this.#note('delete', 'not proven', `${error.message}. "${name}" stays`)
    }
  }

  async #try<Result>(operation: StorageOperation, work: () => Promise<Result>): Promise<Result | undefined> {
    try {
      const result = await work()
      this.#note(operation, 'passed', 'done')
      return result
    } catch (error) {
      this.#failed(operation, error)
      return undefined
    }
  }

  #failed(operation: StorageOperation, error: unknown): void {
    this.#signal.throwIfAborted()
    if (!isFailure(error)) throw error
    this.#note(operation, 'failed', error.message)
  }

  #note(operation: StorageOperation, verdict: ProbeFinding['verdict'], found: string): void {
    this.#findings.set(operation, { operation, verdict, found })
  }
}

function isFailure(error: unknown): error is Failure {
  return error instanceof Failure
}

function putAtMs(name: string): number {
  const [year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0] = TIME.exec(name)?.slice(1).map(Number) ?? []
  return Date.UTC(year, month - 1, day, hour, minute, second)
}
