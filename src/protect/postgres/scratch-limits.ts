import { lstat, opendir, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import type { RecoveryPlan } from './recovery-plan.ts'
import { scratchBytes } from './scratch.ts'

// What a restored copy may take of the host's disk while it runs.

const LOOK_EVERY_MS = 2000
/** Left to everybody else: before a disk is full, the copy goes. */
const FREE_BYTES_MIN = 256 * 1024 * 1024

/** The backup and half of it again, and room for the WAL that is replayed and that lies ahead. */
export function copyBytesMax(manifest: BackupManifest, plan: RecoveryPlan): number {
  const walBytes = plan.stretches.reduce((sum, { from, to }) => sum + Number(to - from), 0)
  return scratchBytes(manifest) + manifest.totals.bytes / 2 + walBytes
}

export interface DiskLimitOptions {
  readonly path: string
  readonly bytesMax: number
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Looks at it again and again until it is disposed of. `exceeded` is called once, with DISK_FULL. */
export class DiskLimit implements AsyncDisposable {
  readonly #closed = new AbortController()
  readonly #work: Promise<void>

  constructor(options: DiskLimitOptions, exceeded: (failure: Failure) => void) {
    this.#work = this.#watch(options, exceeded)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort()
    await this.#work
  }

  async #watch({ path, bytesMax, clock, signal }: DiskLimitOptions, exceeded: (failure: Failure) => void): Promise<void> {
    const over = AbortSignal.any([signal, this.#closed.signal])
    while (!over.aborted) {
      const why = await problemOf(path, bytesMax)
      if (why !== undefined) {
        exceeded(new Failure('DISK_FULL', why, { hint: 'make room, or name a directory on another disk (--scratch)' }))
        return
      }
      await clock.sleep(LOOK_EVERY_MS, over).catch(() => undefined)
    }
  }
}

async function problemOf(path: string, bytesMax: number): Promise<string | undefined> {
  const mib = (bytes: number) => `${Math.round(bytes / 1024 ** 2)} MiB`
  // What goes while it is looked at is not there.
  const { bavail, bsize } = await statfs(path).catch(() => ({ bavail: Infinity, bsize: 1 }))
  if (bavail * bsize < FREE_BYTES_MIN) return `the disk of "${path}" is nearly full: ${mib(bavail * bsize)} are free`
  const used = await bytesIn(path)
  if (used > bytesMax) return `the restored copy has grown to ${mib(used)}; more than ${mib(bytesMax)} it must not take`
  return undefined
}

async function bytesIn(path: string): Promise<number> {
  let bytes = 0
  try {
    for await (const entry of await opendir(path)) {
      const below = join(path, entry.name)
      if (entry.isDirectory()) bytes += await bytesIn(below)
      else
        bytes +=
          512 *
          (await lstat(below).then(
            ({ blocks }) => blocks,
            () => 0,
          ))
    }
  } catch {
    // It went meanwhile.
  }
  return bytes
}
