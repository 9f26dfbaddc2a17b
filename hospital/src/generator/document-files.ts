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
  #waiting: Buffer[] = []
  #count = 0

  constructor(filesDirectory: string) {
    this.#directory = join(filesDirectory, 'documents')
    // Where the service too puts what is not whole yet, and clears away what nobody finished.
    this.#incoming = join(filesDirectory, 'incoming')
  }

  get count(): number {
    return this.#count
  }

  /** To be written by the next `write`. */
  add(content: Buffer): void {
    this.#count += 1
    this.#waiting.push(content)
  }

  /** Writes what was added. */
  async write(): Promise<void> {
    const waiting = this.#waiting
    this.#waiting = []
    const writeNext = async (): Promise<void> => {
      for (let content = waiting.pop(); content !== undefined; content = waiting.pop()) await this.#write(content)
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, writeNext))
  }

  /** Returns when all that were added are on disk, names too. */
  async finish(): Promise<void> {
    await this.write()
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
