import type { Lsn } from '../../postgres/lsn.ts'
import { WalDecoder } from '../../postgres/wal-decoder.ts'
import type { WalFact } from '../../postgres/wal-record.ts'
import { joinContents, NO_CONTENTS, type WalContents } from '../../repository/wal-note.ts'
import { unitsOf, type Stretch, type WalUnit } from './wal-stretch.ts'

// Finds records in stored WAL: notes tell in which segments they may be, and those segments are read.

const NOTES_AT_ONCE = 16

export interface FoundRecord {
  readonly fact: WalFact
  /** Where it begins, and just past it. */
  readonly lsn: Lsn
  readonly endLsn: Lsn
  readonly stretch: Stretch
}

export interface WantedRecord {
  /** Whether WAL of which this is noted may hold such a record. */
  readonly mayHold: (contents: WalContents, unit: WalUnit) => boolean
  readonly matches: (fact: WalFact) => boolean
}

/**
 * The records of stretches that match, in order, read from the WAL itself. A record that goes over a segment's end may be noted with
 * neither segment, so that a segment is read when the notes of it and of the one before it together say that it may hold one.
 */
export async function* searchWal(stretches: readonly Stretch[], wanted: WantedRecord): AsyncGenerator<FoundRecord> {
  const units = unitsOf(stretches)
  const reader = new UnitReader(units)
  let before: WalContents = NO_CONTENTS
  for await (const [index, here] of eachContents(units)) {
    const mayHold = wanted.mayHold(joinContents(before, here), units[index]!)
    before = here
    if (mayHold) yield* (await reader.facts(index)).filter(({ fact }) => wanted.matches(fact))
  }
}

/** What is noted with each unit, some read at once. */
async function* eachContents(units: readonly WalUnit[]): AsyncGenerator<[index: number, contents: WalContents]> {
  for (let at = 0; at < units.length; at += NOTES_AT_ONCE) {
    const contents = await Promise.all(units.slice(at, at + NOTES_AT_ONCE).map(unitContents))
    for (const [index, each] of contents.entries()) yield [at + index, each]
  }
}

/** Where the last complete record of stretches begins; undefined when none is found at their end. */
export async function lastRecordStart(stretches: readonly Stretch[]): Promise<Lsn | undefined> {
  const units = unitsOf(stretches)
  return await new UnitReader(units).recordStart(units.length - 1)
}

/** Whether a record begins at an LSN or behind it: only by such a one PostgreSQL reaches that LSN. */
export async function recordBeginsFrom(stretches: readonly Stretch[], lsn: Lsn): Promise<boolean> {
  const units = unitsOf(stretches)
  const reader = new UnitReader(units)
  for (const [index, unit] of units.entries()) {
    if (unit.to <= lsn) continue
    const start = await reader.recordStart(index)
    if (start !== undefined && start >= lsn) return true
  }
  return false
}

/** The greatest commit time, in microseconds, of what lies before an LSN; looks no further back than `unitsMax` segments. */
export async function greatestCommitBefore(
  stretches: readonly Stretch[],
  lsn: Lsn,
  unitsMax = NOTES_AT_ONCE,
): Promise<bigint | null> {
  const units = unitsOf(stretches)
  const last = units.findLastIndex((unit) => unit.from < lsn)
  for (let index = last; index >= 0 && index > last - unitsMax; index -= 1) {
    const unit = units[index]!
    const greatest = unit.to <= lsn ? (await unitContents(unit)).greatestCommit : await greatestIn(units, index, lsn)
    if (greatest !== null) return greatest
  }
  return null
}

async function greatestIn(units: readonly WalUnit[], index: number, lsn: Lsn): Promise<bigint | null> {
  let greatest: bigint | null = null
  for (const { fact, endLsn } of await new UnitReader(units).facts(index)) {
    if (endLsn > lsn || (fact.kind !== 'commit' && fact.kind !== 'abort')) continue
    if (greatest === null || fact.timeMicros > greatest) greatest = fact.timeMicros
  }
  return greatest
}

/** What is noted with a segment, or with its pieces together. */
export async function unitContents(unit: WalUnit): Promise<WalContents> {
  let contents: WalContents = NO_CONTENTS
  for (const part of unit.parts) contents = joinContents(contents, await part.note())
  return contents
}

/** Decodes units, each together with the segment before it, because a record may begin there. */
class UnitReader {
  readonly #units: readonly WalUnit[]
  #decoder: WalDecoder | undefined
  /** The unit that the decoder has read. */
  #at = -1
  readonly #facts: FoundRecord[] = []

  constructor(units: readonly WalUnit[]) {
    this.#units = units
  }

  /** The facts of records that end in a unit. */
  async facts(index: number): Promise<readonly FoundRecord[]> {
    await this.#read(index)
    const { from, to, stretch } = this.#units[index]!
    const after = from > stretch.from ? from : stretch.from
    return this.#facts.filter(({ endLsn }) => endLsn > after && endLsn <= to)
  }

  /** Where the last record begins that is complete at a unit's end. */
  async recordStart(index: number): Promise<Lsn | undefined> {
    return index < 0 ? undefined : (await this.#read(index)).recordStart
  }

  async #read(index: number): Promise<WalDecoder> {
    const unit = this.#units[index]!
    const before = this.#units.findLastIndex((each, at) => at < index && each.from < unit.from)
    const goesOn = this.#decoder !== undefined && this.#at === before && this.#decoder.position === unit.from
    let decoder = goesOn ? this.#decoder! : undefined
    if (decoder === undefined) {
      decoder = this.#newDecoder(unit, before < 0 ? unit.from : this.#units[before]!.from)
      if (before >= 0) await feed(decoder, this.#units[before]!)
    }
    // What is no WAL any more in the one before says nothing of this one.
    if (decoder.ended !== undefined || decoder.position !== unit.from) decoder = this.#newDecoder(unit, unit.from)
    this.#facts.length = 0
    await feed(decoder, unit)
    this.#decoder = decoder
    this.#at = index
    return decoder
  }

  #newDecoder(unit: WalUnit, startLsn: Lsn): WalDecoder {
    const { stretch } = unit
    const { segmentSize, major, timeline } = stretch.branch.head
    const found = this.#facts
    const onFact = (fact: WalFact, lsn: Lsn, endLsn: Lsn) => found.push({ fact, lsn, endLsn, stretch })
    return new WalDecoder({ startLsn, segmentSizeBytes: segmentSize, major, timeline, onFact })
  }
}

async function feed(decoder: WalDecoder, unit: WalUnit): Promise<void> {
  for (const part of unit.parts) {
    let at = part.startLsn
    for await (const bytes of part.read()) {
      const from = decoder.position
      const piece = bytes.subarray(Number(min(max(from - at, 0n), BigInt(bytes.length))), Number(max(0n, unit.to - at)))
      at += BigInt(bytes.length)
      if (piece.length > 0) decoder.feed(from, piece)
      if (decoder.ended !== undefined || at >= unit.to) break
    }
  }
}

function min(left: bigint, right: bigint): bigint {
  return left < right ? left : right
}

function max(left: bigint, right: bigint): bigint {
  return left > right ? left : right
}
