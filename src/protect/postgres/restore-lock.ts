import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { open, rm, stat, type FileHandle } from 'node:fs/promises'
import { Failure, systemErrorCode } from '../../errors.ts'

/** BSD's and macOS's flag of open(2) that takes the lock at once; Node has no name for it. */
const O_EXLOCK = 0x20
const HELD_BY_ANOTHER = 1
const ATTEMPTS_MAX = 10

/** An exclusive lock on a file. It ends with the process, however that ends, so that a dead one blocks nobody. */
export class FileLock implements AsyncDisposable {
  readonly path: string
  readonly #file: FileHandle

  private constructor(path: string, file: FileHandle) {
    this.path = path
    this.#file = file
  }

  /**
   * Makes the file and locks it; undefined when another process holds the lock, or this one does already. `onUnlocked` is told when this
   * host has no way to lock: the file is then only there.
   */
  static async take(path: string, onUnlocked: (why: string) => void): Promise<FileLock | undefined> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const file = await openLocked(path, onUnlocked)
      if (file === undefined) return undefined
      // Whoever had it may have removed it between our opening and our locking: then we hold a lock that nobody sees.
      const [held, there] = [await file.stat(), await stat(path).catch(() => undefined)]
      if (there !== undefined && there.ino === held.ino && there.dev === held.dev) return new FileLock(path, file)
      await file.close()
    }
    throw new Failure('DIRECTORY_IN_USE', `cannot lock "${path}": it is taken and given up again and again`, {
      hint: 'another restore works there: wait until it has ended',
    })
  }

  /** Ends the lock and leaves the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }

  /** Removes the file, and ends the lock. */
  async remove(): Promise<void> {
    await rm(this.path, { force: true })
  }
}

async function openLocked(path: string, onUnlocked: (why: string) => void): Promise<FileHandle | undefined> {
  const { O_CREAT, O_RDWR, O_NONBLOCK, O_NOFOLLOW } = constants
  if (process.platform !== 'linux') {
    try {
      return await open(path, O_CREAT | O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_EXLOCK, 0o600)
    } catch (error) {
      if (systemErrorCode(error) === 'EAGAIN') return undefined
      throw error
    }
  }
  const file = await open(path, O_CREAT | O_RDWR | O_NOFOLLOW, 0o600)
  const outcome = await flock(file)
  if (outcome === 'held') return (await file.close(), undefined)
  if (outcome !== 'locked') onUnlocked(outcome)
  return file
}

/** The lock is that of the open file, which the program shares with us: it outlives the program, and ends when we close it. */
async function flock(file: FileHandle): Promise<string> {
  const child = spawn('flock', ['-n', '-x', '3'], { stdio: ['ignore', 'ignore', 'ignore', file.fd] })
  return await new Promise((resolve) => {
    child.once('error', (error) => resolve(`flock cannot be run: ${error.message}`))
    child.once('exit', (status) => {
      if (status === 0) resolve('locked')
      else resolve(status === HELD_BY_ANOTHER ? 'held' : `flock ended with status ${status}`)
    })
  })
}
