import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Clock } from '../../clock.ts'
import { historyFileName } from '../../postgres/timeline-history.ts'
import { parseSegmentName, segmentEnd, segmentName } from '../../postgres/wal-segment.ts'
import type { Repository } from '../../repository/repository.ts'
import { forEachConcurrent } from '../../stream/for-each-concurrent.ts'
import {
  ABSENT_DIRECTORY,
  AHEAD_DIRECTORY,
  COMING_DIRECTORY,
  ALL_FETCHED_FILE,
  FetcherLock,
  HISTORIES_DIRECTORY,
  LAST_DIRECTORY,
  STARTING_FILE,
} from './fetcher-lock.ts'
import { ProcessWatch } from './process-watch.ts'
import type { RecoveryPlan } from './recovery-plan.ts'
import { sleepUnlessAborted } from './sleep.ts'
import {
  absentNames,
  deliver,
  openPlanned,
  plannedSegment,
  readPlan,
  segmentsBehind,
  writeDurably,
  type PlannedSegment,
} from './wal-get.ts'

/** What may lie ahead of recovery. */
const AHEAD_BYTES_MAX = 256 * 1024 * 1024
const SEGMENTS_MAX = 32
/** Segments may have 1 GiB: while one is replayed, the next is fetched. */
const SEGMENTS_MIN = 2
const FETCHES_AT_ONCE = 2
/** What a restore puts there: PostgreSQL replays it while its first fetcher starts. */
const FIRST_BYTES_MAX = 128 * 1024 * 1024
const LOOK_MS = 20
/** A recovery that takes nothing for so long is paused, or over; if it goes on, its restore_command starts another fetcher. */
const IDLE_MS_MAX = 60_000

export interface WalAheadOptions {
  readonly planPath: string
  /** The segment that was asked for last: what follows it is fetched. */
  readonly name: string
  /** That one as well: it is not there. */
  readonly itself: boolean
  /** The process that recovers. */
  readonly pid: number
  readonly openRepository: () => Promise<Repository>
  readonly clock: Clock
  readonly signal: AbortSignal
}

/**
 * Keeps the directory `ahead` beside the plan filled with what recovery will ask for next, until the process `pid` is gone, or another fetcher
 * has taken over. Gives how many segments it fetched. A SIGKILL leaves only whole segments under their names. What cannot be fetched,
 * the restore_command asks for itself, and fails for the same reason.
 */
export async function walAhead(options: WalAheadOptions): Promise<number> {
  const directory = dirname(options.planPath)
  const watched = await ProcessWatch.of(options.pid)
  if (!(await watched.runs())) return 0
  await using lock = await FetcherLock.take(directory)
  if (lock === undefined) return 0
  const plan = await readPlan(options.planPath)
  const fetcher = new Fetcher(directory, plan, options)
  const goesOn = async () => !options.signal.aborted && (await lock.hold(options.clock.now())) && (await watched.runs())
  try {
    return await fetcher.work({ ...options, goesOn })
  } finally {
    await fetcher.withdraw()
  }
}

export interface FirstWalOptions extends Pick<WalAheadOptions, 'planPath' | 'name' | 'openRepository'> {
  /** Those that wait for nothing but this end with it. */
  readonly signal: AbortSignal
}

/**
 * Puts there, before recovery begins, what it will ask for first: the answers that the plan alone gives, and the segments behind `name`. What an
 * earlier restore left goes. A segment that cannot be had is not looked for again: PostgreSQL asks for it, and gets the failure.
 */
export async function fetchFirstWal(options: FirstWalOptions): Promise<void> {
  const directory = dirname(options.planPath)
  const plan = await readPlan(options.planPath)
  // A mark of another plan would end recovery too early.
  for (const each of [ALL_FETCHED_FILE, ABSENT_DIRECTORY, HISTORIES_DIRECTORY, AHEAD_DIRECTORY, LAST_DIRECTORY]) {
    await rm(join(directory, each), { recursive: true, force: true })
  }
  const repository = await openPlanned(plan, options.openRepository)
  const first = [...takeFirst(segmentsFrom(plan, options.name), Math.min(SEGMENTS_MAX, FIRST_BYTES_MAX / plan.segmentSize))]
  // The very first is there already.
  const wanted = first.filter((segment, at) => at > 0 || isLast(plan, segment))
  try {
    await writeAnswers(directory, plan)
    await forEachConcurrent(wanted, { limit: FETCHES_AT_ONCE, signal: options.signal }, async (segment) => {
      await deliver(repository, segment, placeOf(directory, plan, segment))
    })
    if (first.some((segment) => isLast(plan, segment))) await markFile(join(directory, ALL_FETCHED_FILE))
  } catch {
    // It only saves time: whoever needs a segment says what is wrong with it, and whoever has no room for what has to be written says so.
    options.signal.throwIfAborted()
  }
}

/** Makes the directories, and puts the answers there that need no more than the plan: what does not belong to the recovery, and history files. */
async function writeAnswers(directory: string, plan: RecoveryPlan): Promise<void> {
  const absent = join(directory, ABSENT_DIRECTORY)
  const histories = join(directory, HISTORIES_DIRECTORY)
  const segments = [AHEAD_DIRECTORY, LAST_DIRECTORY].map((each) => join(directory, each))
  for (const each of [absent, histories, ...segments]) await mkdir(each, { recursive: true, mode: 0o700 })
  for (const { timeline, text } of plan.histories) {
    await writeDurably(join(histories, historyFileName(timeline)), [Buffer.from(text)])
  }
  for (const name of absentNames(plan)) await markFile(join(absent, name))
}

/** An empty file whose name says all. */
async function markFile(path: string): Promise<void> {
  await writeFile(path, '', { mode: 0o600 })
}

interface FetcherOptions extends Pick<WalAheadOptions, 'openRepository' | 'clock' | 'signal'> {
  readonly goesOn: () => Promise<boolean>
}

class Fetcher {
  readonly #directory: string
  readonly #ahead: string
  readonly #coming: string
  readonly #plan: RecoveryPlan
  readonly #segments: Generator<PlannedSegment>
  readonly #limit: number
  readonly #promised = new Map<string, PlannedSegment>()
  #promising = false
  #repository: Repository | undefined

  constructor(directory: string, plan: RecoveryPlan, begin: { name: string; itself: boolean }) {
    this.#directory = directory
    this.#ahead = join(directory, AHEAD_DIRECTORY)
    this.#coming = join(directory, COMING_DIRECTORY)
    this.#plan = plan
    this.#segments = begin.itself ? segmentsFrom(plan, begin.name) : segmentsBehind(plan, begin.name)
    this.#limit = Math.min(SEGMENTS_MAX, Math.max(SEGMENTS_MIN, Math.floor(AHEAD_BYTES_MAX / plan.segmentSize)))
  }

  async work(options: FetcherOptions): Promise<number> {
    const { clock, signal, goesOn } = options
    let fetched = 0
    let lastMs = clock.now()
    let failed = false
    await this.#prepare()
    while (await goesOn()) {
      if (!failed) await this.#promise()
      if (this.#promised.size === 0) {
        if (clock.now() - lastMs > IDLE_MS_MAX) break
        await sleepUnlessAborted(clock, LOOK_MS, signal)
        continue
      }
      try {
        fetched += await this.#fetch(options)
      } catch {
        // Whoever asks for the segment itself gets the failure. To end now would only mean that the next call starts another of us.
        failed = true
        await this.withdraw()
      }
      lastMs = clock.now()
    }
    return fetched
  }

  async #fetch({ openRepository, goesOn }: FetcherOptions): Promise<number> {
    this.#repository ??= await openPlanned(this.#plan, openRepository)
    const repository = this.#repository
    let fetched = 0
    await forEachConcurrent([...this.#promised], { limit: FETCHES_AT_ONCE }, async ([name, segment]) => {
      if (!(await goesOn())) return
      await deliver(repository, segment, placeOf(this.#directory, this.#plan, segment))
      fetched += 1
      // The next one first: recovery may ask for it at once, and would fetch for itself what nobody has promised.
      await this.#promise()
      await this.#settle(name)
    })
    return fetched
  }

  /** Takes back what will not come any more. */
  async withdraw(): Promise<void> {
    for (const name of this.#promised.keys()) await this.#settle(name)
  }

  /** What an earlier fetcher left goes, unless it is what we are about to fetch; and we promise what we are going to fetch. */
  async #prepare(): Promise<void> {
    await mkdir(this.#coming, { recursive: true, mode: 0o700 })
    await writeAnswers(this.#directory, this.#plan)
    for (const name of await readdir(this.#coming)) await rm(join(this.#coming, name), { force: true })
    const kept = new Set<string>()
    for (let count = 0; count < this.#limit; count += 1) {
      const next = this.#segments.next()
      if (next.done === true) break
      const name = segmentName(next.value.segment)
      kept.add(name)
      this.#promised.set(name, next.value)
    }
    for (const name of await readdir(join(this.#directory, LAST_DIRECTORY))) this.#promised.delete(name)
    for (const name of await readdir(this.#ahead)) {
      if (kept.has(name)) this.#promised.delete(name)
      else await rm(join(this.#ahead, name), { force: true })
    }
    for (const name of this.#promised.keys()) await markFile(join(this.#coming, name))
    const starting = join(this.#directory, STARTING_FILE)
    const started = await readFile(starting, 'utf8').catch(() => '')
    if (started.trim() === String(process.pid)) await rm(starting, { force: true })
  }

  /** Promises as much as may lie ahead. */
  async #promise(): Promise<void> {
    if (this.#promising) return
    this.#promising = true
    try {
      // Counted before we look: what is delivered meanwhile counts twice, and never too little.
      const promised = this.#promised.size
      const present = await readdir(this.#ahead)
      await this.#promiseMore(this.#limit - present.length - promised)
    } finally {
      this.#promising = false
    }
  }

  async #promiseMore(count: number): Promise<void> {
    for (let more = count; more > 0; more -= 1) {
      const next = this.#segments.next()
      if (next.done === true) return
      const name = segmentName(next.value.segment)
      await markFile(join(this.#coming, name))
      this.#promised.set(name, next.value)
    }
  }

  async #settle(name: string): Promise<void> {
    await rm(join(this.#coming, name), { force: true })
    this.#promised.delete(name)
  }
}

function* takeFirst<T>(items: Iterable<T>, count: number): Generator<T> {
  let taken = 0
  for (const item of items) {
    yield item
    taken += 1
    if (taken >= count) return
  }
}

/** Where a segment belongs: the plan's last is asked for twice. */
function placeOf(directory: string, plan: RecoveryPlan, segment: PlannedSegment): string {
  return join(directory, isLast(plan, segment) ? LAST_DIRECTORY : AHEAD_DIRECTORY, segmentName(segment.segment))
}

function isLast(plan: RecoveryPlan, { segment }: PlannedSegment): boolean {
  const { timeline, to } = plan.stretches.at(-1)!
  return segment.timeline === timeline && segmentEnd(segment) >= to
}

/** A segment of the plan, and what follows it. */
function* segmentsFrom(plan: RecoveryPlan, name: string): Generator<PlannedSegment> {
  const begin = parseSegmentName(name, plan.segmentSize)
  const first = begin === undefined ? undefined : plannedSegment(plan, begin)
  if (first === undefined) return
  yield first
  yield* segmentsBehind(plan, name)
}
