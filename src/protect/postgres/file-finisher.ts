import { chmod, lchown, open } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '../../assert.ts'
import { crc32cCombine } from '../../postgres/crc32c.ts'
import type { TreeEntry } from '../../repository/tree.ts'

/** Node has four threads for files: one is left for reading the repository. */
const SYNCS_AT_ONCE = 3
/** A file is made durable whenever this much of it was written: the disk works while the rest is being made. */
const SYNC_EVERY_BYTES = 64 * 1024 * 1024

/** A file that is written and durable. */
export interface RestoredFile {
  readonly path: string
  readonly sizeBytes: number
  readonly crc32c: number
}

/** A written stretch of a file. */
export interface WrittenPart {
  readonly length: number
  readonly crc: Promise<number>
}

/** Makes files durable, some at a time, and gives them their owner and mode. */
export class FileFinisher {
  readonly #directory: string
  #running = 0
  readonly #waiting: (() => void)[] = []
  /** Of files that are being written: bytes since the last sync, and syncs under way. */
  readonly #open = new Map<string, { unsynced: number; readonly syncs: Promise<void>[] }>()

  constructor(directory: string) {
    this.#directory = directory
  }

  /** Notes that a part of a file was written. Failures to make it durable come from `finish`. */
  wrote(path: string, bytes: number): void {
    const file = this.#open.get(path) ?? { unsynced: 0, syncs: [] }
    this.#open.set(path, file)
    file.unsynced += bytes
    if (file.unsynced < SYNC_EVERY_BYTES) return
    file.unsynced = 0
    const sync = this.#whenFree(() => syncFile(path))
    // The kernel reports a failed write to whoever asks first: it is kept for `finish`.
    sync.catch(() => undefined)
    file.syncs.push(sync)
  }

  /** Waits until all parts of a file are written, and makes it durable. */
  async finish(entry: TreeEntry & { kind: 'file' }, parts: readonly WrittenPart[]): Promise<RestoredFile> {
    let crc = 0
    for (const part of parts) crc = crc32cCombine(crc, await part.crc, part.length)
    const path = join(this.#directory, entry.path)
    await Promise.all(this.#open.get(path)?.syncs ?? [])
    this.#open.delete(path)
    await this.#whenFree(async () => {
      await syncFile(path, entry.sizeBytes)
      await setOwner(path, entry)
    })
    return { path: entry.path, sizeBytes: entry.sizeBytes, crc32c: crc }
  }

  async #whenFree(work: () => Promise<void>): Promise<void> {
    while (this.#running >= SYNCS_AT_ONCE) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#running += 1
    try {
      await work()
    } finally {
      this.#running -= 1
      this.#waiting.shift()?.()
    }
  }
}

/**
 * Makes a file durable, and makes it first where nothing was written: it is empty. Cuts off what a file that was there has behind its end.
 */
async function syncFile(path: string, sizeBytes?: number): Promise<void> {
  const file = await open(path, 'a', 0o600)
  try {
    if (sizeBytes !== undefined) {
      const { size } = await file.stat()
      assert(size >= sizeBytes, `all ${sizeBytes} bytes of "${path}" were written, and it has ${size}`)
      if (size > sizeBytes) await file.truncate(sizeBytes)
    }
    await file.sync()
  } finally {
    await file.close()
  }
}

export async function setOwner(path: string, entry: TreeEntry): Promise<void> {
  // Only root may give files away; anybody else restores as the user that the server will run as.
  if (process.getuid?.() === 0) await lchown(path, entry.uid, entry.gid)
  await chmod(path, entry.mode)
}
