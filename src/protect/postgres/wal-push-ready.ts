import { readdir, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { systemErrorCode } from '../../errors.ts'
import { forEachConcurrent } from '../../stream/for-each-concurrent.ts'
import { parseArchivedName } from './archived-file.ts'
import { sleepUnlessAborted } from './sleep.ts'
import { pushWalFile, type PushOptions, type PushOutcome } from './wal-push.ts'

// A process for each WAL file costs its start each time (modules, scrypt: a second of a core). So one call also takes the other segments that
// wait, and marks them as PostgreSQL does when archive_command has returned 0: `archive_status/<name>.ready` becomes `<name>.done`.
// PostgreSQL looks for that before it asks for the next one (pgarch.c, pgarch_readyXlog).

const PUSHES_AT_ONCE = 3
/** A call that found others waiting stays for what comes next, looking so often, and until nothing came for so long. */
const LOOK_MS = 50
const IDLE_MS = 400
/** PostgreSQL waits for the call: it has to end. */
const STAY_MS_MAX = 20_000

export interface ReadyPush {
  readonly outcome: PushOutcome
  /** Further segments that were made durable and marked as done. */
  readonly takenAlong: readonly string[]
}

/**
 * Pushes the file that was asked for, then what else is ready. Only the former's failure is a failure: PostgreSQL will ask for the others
 * itself. Throws what `pushWalFile` throws.
 */
export async function pushReady(options: PushOptions): Promise<ReadyPush> {
  const { path, clock, signal } = options
  const outcome = await pushWalFile(options)
  const own = basename(path)
  const done = new Set<string>()
  const failed = new Set<string>([own])
  const begunMs = clock.now()
  let lastMs = begunMs
  while (!signal.aborted && clock.now() - begunMs < STAY_MS_MAX) {
    const names = (await listReady(dirname(path))).filter((name) => !failed.has(name))
    await forEachConcurrent(names, { limit: PUSHES_AT_ONCE }, async (name) => {
      if (signal.aborted) return
      if (await pushAndMark(options, name)) done.add(name)
      else failed.add(name)
    })
    // A storage that is away, a segment that is refused: PostgreSQL asks again, and logs why.
    if (names.some((name) => failed.has(name)) || done.size === 0) break
    if (names.length > 0) lastMs = clock.now()
    else if (clock.now() - lastMs > IDLE_MS) break
    await sleepUnlessAborted(clock, LOOK_MS, signal)
  }
  return { outcome, takenAlong: [...done] }
}

/** Whole segments that wait to be archived, oldest first. Other files are few, and PostgreSQL gives them first. */
async function listReady(directory: string): Promise<string[]> {
  try {
    const names = await readdir(join(directory, 'archive_status'))
    return names
      .filter((name) => name.endsWith('.ready'))
      .map((name) => name.slice(0, -'.ready'.length))
      .filter((name) => parseArchivedName(name)?.kind === 'segment')
      .toSorted()
  } catch (error) {
    // WAL that is rescued from another place has no such directory.
    if (systemErrorCode(error) === undefined) throw error
    return []
  }
}

async function pushAndMark(options: PushOptions, name: string): Promise<boolean> {
  const directory = dirname(options.path)
  const status = join(directory, 'archive_status', name)
  try {
    await pushWalFile({ ...options, path: join(directory, name) })
    // Durable now. A rename that a crash takes back only means that it is pushed again, and found to be there.
    await rename(`${status}.ready`, `${status}.done`)
    return true
  } catch {
    // Nobody asked for it yet: who asks for it gets the failure.
    return false
  }
}
