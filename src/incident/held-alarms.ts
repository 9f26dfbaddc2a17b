import { randomUUID } from 'node:crypto'
import type { Alarm } from './alarm.ts'

/** An alarm that the store does not know of yet. */
export interface HeldAlarm {
  readonly key: string
  raised:
    | { readonly id: string; alarm: Alarm; readonly firstAt: number; lastAt: number; count: number; toldAt: number | undefined }
    | undefined
  cleared: { readonly at: number; readonly text: string | null } | undefined
}

/** What was raised and cleared while the store was away, newest for each key, 1 000 keys at most: what came first goes first. */
export class HeldAlarms {
  readonly #held = new Map<string, HeldAlarm>()
  readonly #max: number

  constructor(max = 1_000) {
    this.#max = max
  }

  get size(): number {
    return this.#held.size
  }

  /** `toldAt` where people know of it already. */
  raise(alarm: Alarm, { at, toldAt }: { at: number; toldAt?: number | undefined }): void {
    const { raised } = this.#entry(alarm.key)
    this.#put({
      key: alarm.key,
      cleared: undefined,
      raised: {
        id: raised?.id ?? randomUUID(),
        alarm,
        firstAt: raised?.firstAt ?? at,
        lastAt: at,
        count: (raised?.count ?? 0) + 1,
        toldAt: raised?.toldAt ?? toldAt,
      },
    })
  }

  /** What nobody was told of goes, and only the end is left: the store may know of an earlier one. */
  clear(key: string, { at, text }: { at: number; text: string | null }): void {
    const { raised } = this.#entry(key)
    this.#put({ key, raised: raised?.toldAt === undefined ? undefined : raised, cleared: { at, text } })
  }

  /** Oldest first. */
  list(): readonly HeldAlarm[] {
    return [...this.#held.values()]
  }

  /** Marks as told what nobody was told of yet, and gives it. */
  tell(at: number): readonly HeldAlarm[] {
    const untold = this.list().filter(({ raised }) => raised !== undefined && raised.toldAt === undefined)
    for (const { raised } of untold) if (raised !== undefined) raised.toldAt = at
    return untold
  }

  delete(key: string): void {
    this.#held.delete(key)
  }

  #entry(key: string): HeldAlarm {
    return this.#held.get(key) ?? { key, raised: undefined, cleared: undefined }
  }

  #put(entry: HeldAlarm): void {
    this.#held.set(entry.key, entry)
    if (this.#held.size <= this.#max) return
    const [oldest] = this.#held.keys()
    if (oldest !== undefined) this.#held.delete(oldest)
  }
}
