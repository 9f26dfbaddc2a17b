import {
  backupsToClose,
  CLOCK_DIFFERENCE_MAX_MS,
  dueMarks,
  GRACE_MS_MIN,
  LEASE_MS,
  LISTING_LAG_MAX_MS,
  markedBy,
  marksToEnd,
  marksToRemove,
  mayRefer,
  neededPacks,
  packsToDelete,
  packsToMark,
  runsAtWork,
  type LeaseFacts,
  type MarkFacts,
} from '../../src/repository/expiry-protocol.ts'
import { Random } from '../faults/random.ts'

// A model of docs/format.md, "Reuse, marks, leases, expiry": writers, deleters and compactors of the index take one step at a time, in an order, with
// pauses of up to four days, deaths and clocks that a seed decides. Listings lag; puts, reads and deletes of one object do not.

/** A step of the protocol that a run of the model leaves out, to show that the model finds what the step prevents. */
export type Omission =
  | 'read the marks again'
  | 'list the packs again'
  | 'close the names of dead runs'
  | 'walk the backups again after the grace'
  | 'spare the packs of runs at work'
  | 'a marked pack stays marked'
  | 'keep every place of a blob'
  | 'keep what is proven'

const HOUR_MS = 3600 * 1000
const BLOBS = 8
const WRITERS = 10
const DELETERS = 16
const COMPACTORS = 3
const PAUSE_MAX_MS = 96 * HOUR_MS

interface Stored {
  readonly putMs: number
  goneMs?: number
}
type Pack = Stored & { readonly blobs: readonly number[] }
type Index = Stored & { readonly packs: ReadonlyMap<string, readonly number[]> }
type Backup = Stored & { readonly sequence: number; readonly blobs: readonly number[] | 'closed'; proven: boolean }
/** How long the actor does nothing else before its next step, at least; undefined for as long as chance has it. */
type Step = number | undefined

interface Actor {
  readonly name: string
  readonly steps: Generator<Step, undefined>
  wakeMs: number
}

/** Says what was violated, by which step; thrown by `exploreExpiry`. */
export class Violation extends Error {}

/** Runs one interleaving. Throws a Violation when a published backup lacks a blob, or when what is proven, or what is dead, does not end as it must. */
export function exploreExpiry(seed: number, omission?: Omission): { steps: number; published: number; deletedPacks: number } {
  const world = new World(seed, omission)
  world.run()
  world.settle()
  return { steps: world.steps, published: world.published, deletedPacks: world.deletedPacks }
}

class World {
  readonly random: Random
  readonly #omission: Omission | undefined
  #nowMs = 1000 * HOUR_MS
  readonly #packs = new Map<string, Pack>()
  readonly #indexes = new Map<string, Index>()
  readonly #leases = new Map<string, Stored & LeaseFacts>()
  readonly #marks = new Map<string, Stored & MarkFacts>()
  readonly #backups = new Map<string, Backup>()
  #ids = 0
  #calm = false
  /** Whether a backup was published, or anything was deleted, since the last check. */
  #changed = false
  steps = 0
  published = 0
  deletedPacks = 0

  constructor(seed: number, omission: Omission | undefined) {
    this.random = new Random(seed)
    this.#omission = omission
  }

  run(): void {
    const actors: Actor[] = []
    const begin = (name: string, steps: Generator<Step, undefined>) => {
      actors.push({ name, steps, wakeMs: this.#nowMs + this.random.below(240) * HOUR_MS })
    }
    for (let count = 0; count < WRITERS; count++) begin('writer', this.#writer(this.#clock()))
    for (let count = 0; count < DELETERS; count++) begin('deleter', this.#deleter(this.#clock()))
    for (let count = 0; count < COMPACTORS; count++) begin('compactor', this.#compactor())
    while (actors.length > 0) {
      const awake = actors.filter(({ wakeMs }) => wakeMs <= this.#nowMs)
      if (awake.length === 0) {
        this.#nowMs = Math.min(...actors.map(({ wakeMs }) => wakeMs))
        continue
      }
      const actor = this.random.pick(awake)
      if (this.#step(actor)) actors.splice(actors.indexOf(actor), 1)
    }
  }

  /** Nobody else works any more: a few deleters, a day and more apart, must leave nothing but what is needed. */
  settle(): void {
    this.#calm = true
    for (let run = 0; run < 12; run++) {
      this.#nowMs += 30 * HOUR_MS
      for (const _ of this.#deleter(this.#clock())) this.#check('deleter')
    }
    const needed = new Set([...this.#refers()].flatMap(({ places }) => places))
    const dead = [...this.#packs].filter(([name, pack]) => pack.goneMs === undefined && !needed.has(name))
    if (dead.length > 0) throw new Violation(`${dead.length} packs that nobody refers to were never deleted`)
  }

  /** Lets an actor take a step; true when it has ended or dies. */
  #step(actor: Actor): boolean {
    this.steps += 1
    const { done, value } = actor.steps.next()
    this.#check(actor.name)
    const chance = this.random.below(100)
    if (chance < 2) return true
    const pauseMs = chance < 7 ? this.random.below(PAUSE_MAX_MS) : this.random.below(chance < 30 ? 2 * HOUR_MS : 60_000)
    actor.wakeMs = this.#nowMs + Math.max(pauseMs, typeof value === 'number' ? value : 0)
    this.#nowMs += this.random.below(20 * 60_000)
    return done === true
  }

  /** A host's clock, wrong by as much as it may be. */
  #clock(): () => number {
    const offsetMs = this.random.below(CLOCK_DIFFERENCE_MAX_MS + 1)
    return () => this.#nowMs + offsetMs
  }

  // A run that writes.
  *#writer(clock: () => number): Generator<Step, undefined> {
    const [run, backup] = [this.#id(), `db/${this.#id()}`]
    // Content comes back: what an expired backup had may be wanted again.
    const blobs = Array.from({ length: BLOBS }, (_, blob) => blob).filter(() => this.random.below(2) === 0)
    const lease = () => this.#leases.set(this.#id(), this.#stored({ run, backup, expiresAtMs: clock() + LEASE_MS }))
    lease()
    yield undefined
    for (let attempt = 0; attempt < 2; attempt++) {
      const marked = markedBy(this.#list(this.#marks).map(([, mark]) => mark))
      yield undefined
      const places = yield* this.#sync()
      const view = { present: new Set([...places.values()].flat()), marked }
      // A large cluster takes days, and its leases are renewed all the time.
      for (let left = this.random.below(4) === 0 ? this.random.below(24) : 0; left > 0; left--) {
        lease()
        yield 5 * HOUR_MS
      }
      const missing = blobs.filter((blob) => !mayRefer(places.get(blob) ?? [], view))
      const own = new Map<string, readonly number[]>()
      for (let at = 0; at < missing.length; at += 2) {
        const name = this.#id().slice(0, 16) + run.slice(0, 16)
        own.set(name, missing.slice(at, at + 2))
        this.#packs.set(name, this.#stored({ blobs: missing.slice(at, at + 2) }))
        for (const blob of missing.slice(at, at + 2)) places.set(blob, [...(places.get(blob) ?? []), name])
        yield undefined
      }
      if (own.size > 0) this.#indexes.set(this.#id(), this.#stored({ packs: own }))
      yield undefined
      lease()
      yield undefined
      const again = this.#without('read the marks again') ? marked : markedBy(this.#list(this.#marks).map(([, mark]) => mark))
      yield undefined
      const listed = new Set(this.#list(this.#packs).map(([name]) => name))
      const present = this.#without('list the packs again')
        ? new Set([...places.values()].flat())
        : new Set([...listed, ...own.keys()])
      yield undefined
      if (!blobs.every((blob) => mayRefer(places.get(blob) ?? [], { present, marked: again }))) continue
      // The put: it fails when the name is taken, that is, closed.
      if (this.#backups.has(backup)) return
      const sequence = 1 + Math.max(0, ...[...this.#backups.values()].map((each) => each.sequence))
      this.#backups.set(backup, this.#stored({ blobs, sequence, proven: false }))
      this.published += 1
      this.#changed = true
      yield undefined
      if (this.random.below(2) === 0) this.#prove(backup)
      return
    }
  }

  /** A restore proves a backup; of one that is marked it would have to be quick. */
  #prove(name: string): void {
    const backup = this.#backups.get(name)
    const marks = [...this.#marks.values()].filter((mark) => mark.goneMs === undefined)
    if (backup?.goneMs === undefined && !marks.some((mark) => mark.backups.includes(name))) backup!.proven = true
  }

  // A run that deletes.
  *#deleter(clock: () => number): Generator<Step, undefined> {
    const marks = this.#list(this.#marks).map(([, mark]) => mark)
    const marked = markedBy(marks)
    yield undefined
    const places = yield* this.#sync()
    const present = new Set([...places.values(), this.#list(this.#packs).map(([name]) => name)].flat())
    yield undefined
    const leases = this.#list(this.#leases).map(([, lease]) => lease)
    const lookMs = this.#nowMs
    yield undefined
    const due = dueMarks(marks, clock(), GRACE_MS_MIN)
    const backups = new Map(this.#list(this.#backups))
    if (due.length > 0 && !this.#without('close the names of dead runs')) {
      for (const name of backupsToClose(leases, new Set(backups.keys()), clock())) {
        const there = this.#backups.get(name)
        // A put that fails says that it is published; a listing may not say so yet.
        if (there !== undefined) backups.set(name, there)
        else this.#backups.set(name, this.#stored({ blobs: 'closed', sequence: 0, proven: false }))
        yield undefined
      }
    }
    // What was published since the names were closed, and before.
    for (const [name, backup] of this.#list(this.#backups)) backups.set(name, backup)
    yield undefined
    const real = [...backups].filter(([, backup]) => backup.blobs !== 'closed' && backup.goneMs === undefined)
    const keep = this.#retained(real)
    const marking = markedBackups(marks)
    const dueBackups = markedBackups(due)
    const going = real.filter(([name]) => dueBackups.has(name) && !keep.has(name))
    const staying = real.filter(([name]) => !going.some(([each]) => each === name))
    const needed = new Set<string>()
    const add = (each: readonly (readonly [string, Backup])[]) => {
      for (const [, { blobs }] of each) {
        if (blobs === 'closed') continue
        for (const blob of blobs) {
          const found = this.#without('keep every place of a blob') ? one(places.get(blob), this.random) : places.get(blob)
          for (const pack of neededPacks(found ?? [], marked)) needed.add(pack)
        }
      }
    }
    add(staying.filter(([name]) => keep.has(name)))
    const neededByKept = new Set(needed)
    if (!this.#without('walk the backups again after the grace')) add(staying)
    else needed.clear()
    yield undefined
    for (const [name] of going) {
      this.#delete(this.#backups, name)
      yield undefined
    }
    const view = { present, marked }
    for (const pack of packsToDelete(due, view, needed)) {
      this.#delete(this.#packs, pack)
      present.delete(pack)
      this.deletedPacks += 1
      yield undefined
    }
    const atWork = this.#without('spare the packs of runs at work')
      ? new Set<string>()
      : runsAtWork(leases, new Set(real.map(([name]) => name)), clock() + (this.#calm ? 200 * HOUR_MS : 0))
    const toMark = packsToMark(view, neededByKept, atWork)
    const expired = staying.map(([name]) => name).filter((name) => !keep.has(name) && !marking.has(name))
    if (toMark.length + expired.length > 0) {
      for (const pack of toMark) {
        if (this.#isAtWork(pack, lookMs)) throw new Violation('a pack of a run at work was marked')
      }
      this.#mark({ atMs: clock(), packs: toMark, backups: expired })
    }
    yield undefined
    const left = { packs: present, backups: new Set(staying.map(([name]) => name)) }
    for (const mark of marksToEnd(due, marks, left)) {
      this.#mark({ atMs: clock(), packs: [], backups: [], ends: mark.name })
      yield undefined
    }
    const removed = this.#without('a marked pack stays marked')
      ? due.filter((mark) => mark.atMs + 2 * GRACE_MS_MIN <= clock()).map(({ name }) => name)
      : marksToRemove(marks, clock(), GRACE_MS_MIN)
    for (const name of removed) {
      this.#delete(this.#marks, name)
      yield undefined
    }
  }

  /** A policy: the three newest, and the newest that is proven. */
  #retained(backups: readonly (readonly [string, Backup])[]): Set<string> {
    const newest = backups.toSorted(([, left], [, right]) => right.sequence - left.sequence)
    const proven = this.#without('keep what is proven') ? undefined : newest.find(([, backup]) => backup.proven)
    return new Set([...newest.slice(0, 2), ...(proven === undefined ? [] : [proven])].map(([name]) => name))
  }

  // Many index objects become one.
  *#compactor(): Generator<Step, undefined> {
    const old = this.#list(this.#indexes)
    yield undefined
    const present = new Set(this.#list(this.#packs).map(([name]) => name))
    yield undefined
    const packs = new Map(old.flatMap(([, index]) => [...index.packs]).filter(([pack]) => present.has(pack)))
    this.#indexes.set(this.#id(), this.#stored({ packs }))
    yield undefined
    for (const [name] of old) {
      this.#delete(this.#indexes, name)
      yield undefined
    }
  }

  /** Where blobs are, as a reader finds it: the index objects that are listed and still there when they are read, and the directories of packs that none of them names. */
  *#sync(): Generator<Step, Map<number, string[]>> {
    const listed = this.#list(this.#indexes).map(([name]) => name)
    yield undefined
    const packs = this.#list(this.#packs).map(([name]) => name)
    yield undefined
    const held = new Map<string, readonly number[]>()
    for (const name of listed) {
      const index = this.#indexes.get(name)
      if (index?.goneMs === undefined) for (const [pack, blobs] of index?.packs ?? []) held.set(pack, blobs)
    }
    const places = new Map<number, string[]>()
    for (const name of packs) {
      const pack = this.#packs.get(name)
      const blobs = held.get(name) ?? (pack?.goneMs === undefined ? pack?.blobs : undefined)
      for (const blob of blobs ?? []) places.set(blob, [...(places.get(blob) ?? []), name])
    }
    return places
  }

  #check(by: string): void {
    if (!this.#changed) return
    this.#changed = false
    for (const { backup, blob, places } of this.#refers()) {
      if (places.length === 0) throw new Violation(`backup ${backup} lacks blob ${blob}, after a step of a ${by}`)
    }
    const proven = [...this.#backups.values()].filter((backup) => backup.proven)
    const newest = proven.toSorted((left, right) => right.sequence - left.sequence)[0]
    if (newest?.goneMs !== undefined) throw new Violation(`the newest proven backup was deleted by a ${by}`)
  }

  *#refers(): Generator<{ backup: string; blob: number; places: string[] }> {
    for (const [name, backup] of this.#backups) {
      if (backup.goneMs !== undefined || backup.blobs === 'closed') continue
      for (const blob of backup.blobs) {
        const places = [...this.#packs].filter(([, pack]) => pack.goneMs === undefined && pack.blobs.includes(blob))
        yield { backup: name, blob, places: places.map(([pack]) => pack) }
      }
    }
  }

  /** What a listing shows: what was put or deleted within the lag may or may not show. */
  #list<T extends Stored>(objects: ReadonlyMap<string, T>): [string, T][] {
    const shown = (ms: number | undefined) =>
      ms !== undefined && (ms <= this.#nowMs - LISTING_LAG_MAX_MS || this.#calm || this.random.below(2) === 0)
    return [...objects].filter(([, object]) => shown(object.putMs) && !shown(object.goneMs))
  }

  #mark(facts: Omit<MarkFacts, 'name'>): void {
    const name = this.#id()
    this.#marks.set(name, this.#stored({ ...facts, name }))
  }

  /** Whether the run that made the pack has a lease that is good by every clock and could be seen then, and has yet to publish. */
  #isAtWork(pack: string, lookMs: number): boolean {
    const own = [...this.#leases.values()].filter(({ run }) => run.slice(0, 16) === pack.slice(16))
    const published = own.some(({ backup }) => this.#backups.has(backup))
    return (
      !published &&
      own.some(
        ({ putMs, expiresAtMs }) => putMs <= lookMs - LISTING_LAG_MAX_MS && expiresAtMs - CLOCK_DIFFERENCE_MAX_MS > this.#nowMs,
      )
    )
  }

  #delete(objects: Map<string, Stored>, name: string): void {
    const object = objects.get(name)
    this.#changed = true
    if (object !== undefined && object.goneMs === undefined) object.goneMs = this.#nowMs
  }

  #stored<T>(object: T): T & Stored {
    return { ...object, putMs: this.#nowMs }
  }

  #without(omission: Omission): boolean {
    return this.#omission === omission
  }

  #id(): string {
    this.#ids += 1
    return String(this.#ids).padStart(16, '0').padEnd(32, 'x')
  }
}

function markedBackups(marks: readonly MarkFacts[]): Set<string> {
  return new Set(marks.flatMap((mark) => mark.backups))
}

function one(places: readonly string[] | undefined, random: Random): readonly string[] {
  return places === undefined || places.length === 0 ? [] : [random.pick(places)]
}
