import { assert } from '../assert.ts'
import { chainHash, hashedText, NO_HASH, type AuditEntry } from './audit-entry.ts'
import type { AuditHead } from './audit-head.ts'
import type { Json } from './canonical-json.ts'

// Checks of the trail: each copy by itself, the copies against each other, and all of them against heads that were told outside.

export type AuditProblemKind = 'changed' | 'missing' | 'reordered' | 'cut' | 'damaged' | 'late' | 'signature'

/** What is wrong, from which entry to which. */
export interface AuditProblem {
  readonly kind: AuditProblemKind
  /** "the store", `the repository of "osun"`, "the head". */
  readonly where: string
  readonly seq: number | null
  readonly to: number | null
  readonly text: string
}

/** Of each hash so much is kept: nobody finds a second text for 128 bits of one. */
const HASH_BYTES = 16
const SLOT_BYTES = 2 * HASH_BYTES
const EMPTY = Buffer.alloc(SLOT_BYTES)
/** Six years of a thousand a day, twice. */
const ENTRIES_MAX = 5_000_000
const PROBLEMS_MAX = 1000
const DAY_MS = 24 * 3_600_000
/** What is older may be gone. */
const KEPT_MS = (6 * 365 + 1) * DAY_MS
/** A copy may be so late. */
const LATE_MS = 5 * 60_000

/** One copy of the trail, as far as it was read: entries are added in the order in which they are kept. */
export class ChainCopy {
  readonly name: string
  readonly problems: AuditProblem[] = []
  #slots = Buffer.alloc(1024 * SLOT_BYTES)
  /** Of the first slot. */
  #base = 0
  #last = 0
  #first = Number.POSITIVE_INFINITY
  #newestRead = 0
  #firstAt: string | null = null
  #lastAt: string | null = null

  constructor(name: string) {
    this.name = name
  }

  get first(): number | null {
    return this.#last === 0 ? null : this.#first
  }

  get last(): number | null {
    return this.#last === 0 ? null : this.#last
  }

  get lastAt(): string | null {
    return this.#lastAt
  }

  /** An entry, with all that it has; `kept` is the number and the text that it is kept with, where these are apart from it. */
  add(entry: AuditEntry & Readonly<Record<string, Json>>, kept?: { readonly seq: number; readonly text: string }): void {
    const { seq, previous, hash, at } = entry
    if (kept !== undefined && kept.seq !== seq) this.#note('reordered', kept.seq, `in its place is entry ${seq}`)
    if (chainHash(previous, kept?.text ?? hashedText(entry)) !== hash) this.#note('changed', seq, 'it does not have its hash')
    if (Math.abs(seq - (this.last ?? seq)) > ENTRIES_MAX / 2) {
      this.#note('changed', seq, 'its number is far from all others')
      return
    }
    const known = this.#slotOf(seq)
    if (known !== undefined && !isEmpty(known)) {
      if (!known.subarray(0, HASH_BYTES).equals(short(hash))) this.#note('changed', seq, 'there are two of this number')
      return
    }
    if (seq < this.#newestRead) this.#note('reordered', seq, `it comes behind entry ${this.#newestRead}`)
    this.#newestRead = Math.max(this.#newestRead, seq)
    const slot = this.#makeSlot(seq)
    short(hash).copy(slot)
    short(previous).copy(slot, HASH_BYTES)
    if (seq < this.#first) [this.#first, this.#firstAt] = [seq, at]
    if (seq > this.#last) [this.#last, this.#lastAt] = [seq, at]
  }

  /** Something of it does not open. */
  addDamage(text: string): void {
    this.#note('damaged', null, text)
  }

  /** Whether it has this entry; undefined when it has none of this number. */
  has(seq: number, hash: string): boolean | undefined {
    const slot = this.#slotOf(seq)
    return slot === undefined || isEmpty(slot) ? undefined : slot.subarray(0, HASH_BYTES).equals(short(hash))
  }

  /** All is read: what is missing, and what does not hang together. It begins with the first entry, unless that is so old that it may be gone. */
  finish(nowMs: number): void {
    if (this.#last === 0) return
    if (this.#first > 1 && (this.#firstAt === null || Date.parse(this.#firstAt) > nowMs - KEPT_MS)) {
      this.#note('cut', 1, `it begins with entry ${this.#first}`, this.#first - 1)
    }
    if (this.#first === 1 && !this.#slotOf(1)!.subarray(HASH_BYTES).equals(short(NO_HASH)))
      this.#note('changed', 1, 'it is not the first of a chain')
    let missingFrom: number | undefined
    for (let seq = this.#first + 1; seq <= this.#last; seq += 1) {
      const slot = this.#slotOf(seq)!
      if (isEmpty(slot)) {
        missingFrom ??= seq
        continue
      }
      if (missingFrom !== undefined) this.#note('missing', missingFrom, 'there is nothing of it', seq - 1)
      else if (!slot.subarray(HASH_BYTES).equals(this.#slotOf(seq - 1)!.subarray(0, HASH_BYTES))) {
        this.#note('changed', seq, `it does not follow entry ${seq - 1}: one of them was changed, or another put in its place`)
      }
      missingFrom = undefined
    }
  }

  /** The first entry that this copy has otherwise than another one. */
  firstDifference(other: ChainCopy): number | undefined {
    const [from, to] = [Math.max(this.#first, other.#first), Math.min(this.#last, other.#last)]
    for (let seq = from; seq <= to; seq += 1) {
      const [left, right] = [this.#slotOf(seq)!, other.#slotOf(seq)!]
      if (!isEmpty(left) && !isEmpty(right) && !left.equals(right)) return seq
    }
    return undefined
  }

  #note(kind: AuditProblemKind, seq: number | null, text: string, to = seq): void {
    if (this.problems.length < PROBLEMS_MAX) this.problems.push({ kind, where: this.name, seq, to, text })
  }

  #slotOf(seq: number): Buffer | undefined {
    const at = seq - this.#base
    if (this.#base === 0 || at < 0 || (at + 1) * SLOT_BYTES > this.#slots.length) return undefined
    return this.#slots.subarray(at * SLOT_BYTES, (at + 1) * SLOT_BYTES)
  }

  #makeSlot(seq: number): Buffer {
    if (this.#base === 0) this.#base = seq
    const before = Math.max(0, this.#base - seq)
    const wanted = Math.max(seq, this.#last) - Math.min(seq, this.#base) + 1
    assert(wanted <= ENTRIES_MAX, 'the trail is within its bound')
    if (before > 0 || wanted * SLOT_BYTES > this.#slots.length) {
      const slots = Buffer.alloc(Math.max(2 * this.#slots.length, (wanted + before) * SLOT_BYTES))
      this.#slots.copy(slots, before * SLOT_BYTES)
      this.#slots = slots
      this.#base -= before
    }
    return this.#slotOf(seq)!
  }
}

/** What the copies say of each other. The store's was read last. `written`: how far a copy was, as the store remembers it. */
export function compareCopies(
  copies: readonly ChainCopy[],
  { nowMs, written }: { readonly nowMs: number; readonly written: ReadonlyMap<string, number> },
): AuditProblem[] {
  const problems: AuditProblem[] = []
  const longest = copies.toSorted((left, right) => (right.last ?? 0) - (left.last ?? 0))[0]
  for (const copy of copies) {
    if (longest === undefined || copy === longest) continue
    const different = copy.firstDifference(longest)
    if (different !== undefined) {
      const text = `it is not the same as in ${longest.name}`
      problems.push({ kind: 'changed', where: copy.name, seq: different, to: null, text })
    }
    const [last, end] = [copy.last ?? 0, longest.last ?? 0]
    if (last >= end) continue
    const where = { where: copy.name, seq: last + 1, to: end }
    const text = `it ends before what ${longest.name} has`
    // The store has everything first; a repository may be late.
    if (copy.name === STORE_NAME || last < (written.get(copy.name) ?? 0)) problems.push({ kind: 'cut', ...where, text })
    else if (longest.lastAt !== null && Date.parse(longest.lastAt) < nowMs - LATE_MS)
      problems.push({ kind: 'late', ...where, text })
  }
  return problems
}

export const STORE_NAME = 'the store'

/** What copies say of a head that was told outside, and is signed. */
export function compareHead({ seq, hash, at, system }: AuditHead, copies: readonly ChainCopy[]): AuditProblem[] {
  const told = `the head of "${system}" of ${at}`
  return copies.flatMap((copy): AuditProblem[] => {
    const has = copy.has(seq, hash)
    if (has === true || (copy.first !== null && seq < copy.first)) return []
    if (has === false)
      return [{ kind: 'changed', where: copy.name, seq, to: seq, text: `it is not the one that ${told} tells of` }]
    if (seq > (copy.last ?? 0)) {
      return [{ kind: 'cut', where: copy.name, seq: (copy.last ?? 0) + 1, to: seq, text: `${told} tells of entry ${seq}` }]
    }
    // A hole, which is told of already.
    return []
  })
}

function short(hash: string): Buffer {
  return Buffer.from(hash, 'hex').subarray(0, HASH_BYTES)
}

function isEmpty(slot: Buffer): boolean {
  return slot.equals(EMPTY)
}
