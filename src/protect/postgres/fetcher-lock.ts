import { randomBytes } from 'node:crypto'
import { link, readFile, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { systemErrorCode } from '../../errors.ts'

// What restore_command, wal-get and the fetcher that works ahead of them share, beside the plan:
//   ahead/<segment>    fetched, whole, checked and durable: whoever needs it moves it away
//   last/<segment>     the plan's last, likewise, but to be copied: PostgreSQL asks for it once more at the end of recovery
//   all-fetched        all that the plan counts on was in ahead/ and last/ when recovery began
//   coming/<segment>   promised by the fetcher that works now; gone when the segment is in ahead/, or will not come
//   absent/<name>      not part of this recovery, by the plan: PostgreSQL ends recovery on it
//   histories/<name>   a history file of the plan, to be copied
//   fetcher            the process that works now: its number, and a token of its own
//   starting           the number of the process that restore_command started last; gone when that has promised what it is going to fetch

export const AHEAD_DIRECTORY = 'ahead'
export const LAST_DIRECTORY = 'last'
export const ALL_FETCHED_FILE = 'all-fetched'
export const COMING_DIRECTORY = 'coming'
export const ABSENT_DIRECTORY = 'absent'
export const HISTORIES_DIRECTORY = 'histories'
export const LOCK_FILE = 'fetcher'
export const STARTING_FILE = 'starting'
const BEAT_MS = 1000
/** A fetcher that has not beaten for so long is gone, even if a process has its number. */
const STALE_MS = 30_000

/** The right to fetch ahead. Two that take it over at once only do work twice: files get their names whole, and have the same bytes. */
export class FetcherLock implements AsyncDisposable {
  readonly #path: string
  readonly #text: string
  #beatMs = 0

  private constructor(path: string, text: string) {
    this.#path = path
    this.#text = text
  }

  /** Undefined when another fetcher works. */
  static async take(directory: string): Promise<FetcherLock | undefined> {
    const path = join(directory, LOCK_FILE)
    const text = `${process.pid}\n${randomBytes(8).toString('hex')}\n`
    const temporary = `${path}.${process.pid}`
    await writeFile(temporary, text, { mode: 0o600 })
    try {
      if (await isStale(path)) await rm(path, { force: true })
      // With its content at once, or not at all.
      await link(temporary, path)
      return new FetcherLock(path, text)
    } catch (error) {
      if (systemErrorCode(error) === 'EEXIST') return undefined
      throw error
    } finally {
      await rm(temporary, { force: true })
    }
  }

  /** Whether it is still ours; says that we live. */
  async hold(nowMs: number): Promise<boolean> {
    if ((await readUnlessGone(this.#path)) !== this.#text) return false
    if (nowMs - this.#beatMs < BEAT_MS) return true
    this.#beatMs = nowMs
    await utimes(this.#path, nowMs / 1000, nowMs / 1000).catch(() => undefined)
    return true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if ((await readUnlessGone(this.#path)) === this.#text) await rm(this.#path, { force: true })
  }
}

/**
 * Sends a fetcher away that has not fetched what was asked for and has not promised it: recovery went elsewhere, or it is dead. The next
 * restore_command starts another.
 */
export async function dismissFetcher(directory: string, name: string): Promise<void> {
  const lock = join(directory, LOCK_FILE)
  const stale = await isStale(lock)
  const coming = await readdir(join(directory, COMING_DIRECTORY)).catch((): string[] => [])
  const behind = coming.some((each) => each >= name)
  // One that has just begun has promised what comes next.
  if (!stale && behind) return
  await rm(lock, { force: true })
  for (const each of coming) await rm(join(directory, COMING_DIRECTORY, each), { force: true })
}

/** Whether the lock is of a process that is gone. A missing one is not stale. */
async function isStale(path: string): Promise<boolean> {
  const text = await readUnlessGone(path)
  if (text === undefined) return false
  const beat = await stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => Date.now(),
  )
  return !isAlive(Number.parseInt(text, 10)) || Date.now() - beat > STALE_MS
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return systemErrorCode(error) === 'EPERM'
  }
}

async function readUnlessGone(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
