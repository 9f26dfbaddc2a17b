import { hash } from 'node:crypto'
import { open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { makeDirectory, syncDirectory } from '../durable.ts'

/** Writes at once: a disk takes many syncs in the time of one. */
const CONCURRENCY = 16

/**
 * The files of a generated hospital, as DESIGN.md has it under "Files": temporary name, sync, rename, and the folders synced once at the end, before the events that
 * name the files are committed. A file that is there already is the same, and is written again.
 */
export class DocumentFiles {
  readonly #directory: string
  readonly #incoming: string
  readonly #folders = new Set<string>()
  readonly #running = new Set<Promise<void>>()
  #failure: Error | undefined
  #count = 0

  constructor(filesDirectory: string) {
    this.#directory = join(filesDirectory, 'documents')
    // Where the service too puts what is not whole yet, and clears away what nobody finished.
    this.#incoming = join(filesDirectory, 'incoming')
  }

  get count(): number {
    return this.#count
  }

  /** Waits while too many are being written. Throws what an earlier one failed with. */
  async add(content: Buffer): Promise<void> {
    if (this.#running.size >= CONCURRENCY) await Promise.race(this.#running)
    if (this.#failure !== undefined) throw this.#failure
    this.#count += 1
    const writing = this.#write(content).catch((error: unknown) => {
      this.#failure ??= error instanceof Error ? error : new Error(String(error))
    })
    this.#running.add(writing)
    void writing.then(() => this.#running.delete(writing))
  }

  /** Returns when all that were added are on disk, names too. */
  async finish(): Promise<void> {
    await Promise.all(this.#running)
    if (this.#failure !== undefined) throw this.#failure
    await makeDirectory(this.#directory)
    for (const folder of [...this.#folders, this.#directory]) await syncDirectory(folder)
  }

  async #write(content: Buffer): Promise<void> {
    const sha256 = hash('sha256', content, 'hex')
    const folder = join(this.#directory, sha256.slice(0, 2))
    if (!this.#folders.has(folder)) for (const each of [folder, this.#incoming]) await makeDirectory(each)
    this.#folders.add(folder)
    const unfinished = join(this.#incoming, `generated-${sha256}`)
    const handle = await open(unfinished, 'w')
    try {
      await handle.writeFile(content)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(unfinished, join(folder, sha256))
  }
}
