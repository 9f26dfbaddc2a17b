import { chmod, chown, mkdir, open, readdir, rename, rm, writeFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import type { Account } from '../../postgres/cluster-process.ts'
import { historyFileName } from '../../postgres/timeline-history.ts'
import { parseSegmentName, segmentAt, segmentName } from '../../postgres/wal-segment.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Clock } from '../../clock.ts'
import { isRoot } from './durable-file.ts'
import type { RecoveryPlan } from './recovery-plan.ts'
import { quoteShell } from './recovery-settings.ts'
import { explainWrite } from './restore-copy.ts'
import { absentNames, plannedSegment, segmentContent, segmentsBehind, type PlannedSegment } from './wal-get.ts'

// How WAL comes to a scratch server, which can read neither key nor repository: whoever restored it lays out what the frozen plan has, and nothing else,
// in a directory that the server may only read; the server asks by empty files, of which nothing but the name is looked at.
//
//   <scratch>/wal/<name>          a segment or a history file, whole
//   <scratch>/wal/absent/<name>   not part of this recovery, by the plan
//   <scratch>/wal/doubt/<name>    cannot be had: PostgreSQL must stop, and never promote
//   <scratch>/wal/beat            changes as long as somebody lays out
//   <scratch>/asked/<name>        what the server waits for, or took last

const NAME = /^[0-9A-F]{24}$|^[0-9A-F]{8}\.history$/
/** What may lie ahead of recovery. */
const AHEAD_BYTES_MAX = 256 * 1024 * 1024
const SEGMENTS_MAX = 32
const SEGMENTS_MIN = 2
/** PostgreSQL comes back to the last segment at the end of recovery. */
const KEPT_BEHIND = 2
const LOOK_MS = 20
const BEAT_EVERY_LOOKS = 25
/** A server has one startup process, which asks for one file at a time. What asks for more is none of PostgreSQL's. */
const ASKED_MAX = 1000
/** So many looks, a hundredth of a second apart, with no beat: whoever laid out is dead. */
const SILENT_LOOKS_MAX = 3000

export interface ScratchWalOptions {
  readonly repository: Repository
  readonly plan: RecoveryPlan
  /** The scratch directory, in which the server's account may rename nothing. */
  readonly home: string
  /** When we are root: whom the server runs as. */
  readonly account: Account
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Lays out the WAL of one recovery until it is disposed of. */
export class ScratchWal implements AsyncDisposable {
  readonly #options: ScratchWalOptions
  readonly #wal: string
  readonly #asked: string
  readonly #limit: number
  readonly #present = new Set<string>()
  readonly #closed = new AbortController()
  #ahead: Generator<PlannedSegment>
  /** What of `#ahead` is there, or comes, in its order. */
  readonly #laid: string[] = []
  #work: Promise<void> = Promise.resolve()
  #problem: Error | undefined

  private constructor(options: ScratchWalOptions) {
    this.#options = options
    this.#wal = join(options.home, 'wal')
    this.#asked = join(options.home, 'asked')
    this.#limit = Math.min(SEGMENTS_MAX, Math.max(SEGMENTS_MIN, Math.floor(AHEAD_BYTES_MAX / options.plan.segmentSize)))
    this.#ahead = segmentsOf(options.plan)
  }

  /**
   * Lays out what recovery asks for first, and goes on in the background. Throws what the first segment cannot be had for (WAL_GAP, OBJECT_DAMAGED,
   * OBJECT_MISSING, what the storage throws), and DISK_FULL.
   */
  static async open(options: ScratchWalOptions): Promise<ScratchWal> {
    const wal = new ScratchWal(options)
    await wal.#prepare()
    const [first] = segmentsOf(options.plan)
    if (first !== undefined) await wal.#layOut(segmentName(first.segment))
    wal.#work = wal.#serve().catch((error: unknown) => wal.#note(error))
    return wal
  }

  /** Why something could not be had; undefined as long as all could. */
  get problem(): Error | undefined {
    return this.#problem
  }

  /** Where the server asks. */
  get asked(): string {
    return this.#asked
  }

  /**
   * The restore_command: a shell and nothing of ours, so that nothing of ours has to be within the server's reach. 1, on which PostgreSQL ends recovery, only for
   * what is marked as absent; a mark of doubt, nobody who lays out, and whatever else goes wrong are 255, on which it stops.
   */
  get command(): string {
    const [wal, asked] = [this.#wal, this.#asked].map((path) => quoteShell(path).replaceAll('%', '%%'))
    const ask = `: >${asked}/%f || exit 255`
    const answer = `if test -e ${wal}/absent/%f; then exit 1; elif test -e ${wal}/doubt/%f; then exit 255; elif test -e ${wal}/%f; then cp ${wal}/%f "%p" || exit 255; exit 0; fi`
    const silent = `read now <${wal}/beat; if test "$now" = "$then"; then n=$((n+1)); else n=0; then=$now; fi; test $n -lt ${SILENT_LOOKS_MAX} || exit 255`
    return `n=0; then=; while :; do ${ask}; ${answer}; ${silent}; sleep 0.01; done`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort()
    await this.#work
  }

  async #prepare(): Promise<void> {
    const { account, plan } = this.#options
    for (const path of [this.#wal, this.#asked, join(this.#wal, 'absent'), join(this.#wal, 'doubt')]) {
      await mkdir(path, { mode: 0o700 })
      if (isRoot()) await chown(path, path === this.#asked ? account.uid : 0, account.gid)
      await chmod(path, isRoot() && path !== this.#asked ? 0o750 : 0o700)
    }
    await this.#beat(0)
    for (const { timeline, text } of plan.histories) await this.#write(historyFileName(timeline), [Buffer.from(text)])
    for (const name of absentNames(plan)) await this.#mark('absent', name)
  }

  async #serve(): Promise<void> {
    const { clock, signal } = this.#options
    const over = AbortSignal.any([signal, this.#closed.signal])
    let filling: Promise<void> = Promise.resolve()
    let isFilling = false
    for (let looks = 1; !over.aborted; looks += 1) {
      if (looks % BEAT_EVERY_LOOKS === 0) await this.#beat(looks)
      await this.#answer()
      if (!isFilling && this.#hasRoom()) {
        isFilling = true
        filling = this.#layOutNext().finally(() => {
          isFilling = false
        })
      }
      await clock.sleep(LOOK_MS, over).catch(() => undefined)
    }
    await filling
  }

  /** Answers what is asked for and is not there yet, and takes away what lies behind. */
  async #answer(): Promise<void> {
    const asked = (await readdir(this.#asked)).slice(0, ASKED_MAX)
    for (const name of asked) {
      if (!NAME.test(name) || this.#isAnswered(name)) continue
      await this.#layOut(name)
    }
    const reached = Math.max(...asked.map((name) => this.#laid.indexOf(name)))
    for (const name of this.#laid.splice(0, Math.max(0, reached - KEPT_BEHIND))) {
      // The mark first: else it would be asked for again.
      await rm(join(this.#asked, name), { force: true })
      await rm(join(this.#wal, name), { force: true })
      this.#present.delete(name)
    }
  }

  #isAnswered(name: string): boolean {
    return this.#present.has(name) || this.#laid.includes(name)
  }

  #hasRoom(): boolean {
    return this.#laid.length < this.#limit + KEPT_BEHIND
  }

  async #layOutNext(): Promise<void> {
    const next = this.#ahead.next()
    if (next.done === true) return
    const name = segmentName(next.value.segment)
    this.#laid.push(name)
    if (this.#present.has(name)) return
    try {
      await this.#write(name, segmentContent(this.#options.repository, next.value))
    } catch {
      // Nobody has asked for it yet: when somebody does it is tried again, and what is wrong then counts.
      this.#laid.splice(this.#laid.indexOf(name), 1)
    }
  }

  /** What is asked for, as the plan says: whole, absent or in doubt. */
  async #layOut(name: string): Promise<void> {
    const { plan, repository } = this.#options
    try {
      const segment = parseSegmentName(name, plan.segmentSize)
      const wanted = segment === undefined ? undefined : plannedSegment(plan, segment)
      // History files of the plan are there from the beginning.
      if (wanted === undefined) await this.#mark('absent', name)
      else await this.#write(name, segmentContent(repository, wanted))
    } catch (cause) {
      const error = explainWrite(cause)
      this.#note(error)
      await this.#mark('doubt', name)
      throw error
    }
  }

  #note(error: unknown): void {
    this.#problem ??= error instanceof Error ? error : new Error(String(error))
  }

  async #mark(kind: 'absent' | 'doubt', name: string): Promise<void> {
    await writeFile(join(this.#wal, kind, name), '', { mode: 0o640 })
    this.#present.add(name)
  }

  /** Under its name only when it is whole: a torn segment would look to PostgreSQL like the end of WAL. It is thrown away, so that nothing is flushed. */
  async #write(name: string, pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    const temporary = join(this.#wal, `.${name}`)
    const file = await open(temporary, 'w', 0o640)
    try {
      await this.#show(file)
      for await (const piece of pieces) await file.writeFile(piece)
    } finally {
      await file.close()
    }
    await rename(temporary, join(this.#wal, name))
    this.#present.add(name)
  }

  async #beat(count: number): Promise<void> {
    await using file = await open(join(this.#wal, 'beat'), 'w', 0o640)
    await this.#show(file)
    await file.writeFile(`${count}\n`)
  }

  /** To the server's account, whatever the umask. */
  async #show(file: FileHandle): Promise<void> {
    if (!isRoot()) return
    await file.chown(0, this.#options.account.gid)
    await file.chmod(0o640)
  }
}

/** All of the plan, in the order in which recovery asks for it. */
function* segmentsOf(plan: RecoveryPlan): Generator<PlannedSegment> {
  const [stretch] = plan.stretches
  const first = segmentAt(stretch!.from, stretch!.timeline, plan.segmentSize)
  const planned = plannedSegment(plan, first)
  if (planned === undefined) return
  yield planned
  yield* segmentsBehind(plan, segmentName(first))
}
