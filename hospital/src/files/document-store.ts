import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { makeDirectory, syncDirectory } from '../durable.ts'
import { Refusal } from '../refusal.ts'
import { uuid } from '../uuid.ts'

export interface StoredFile {
  /** Hexadecimal. */
  readonly sha256: string
  /** Base64. */
  readonly sha1: string
  readonly sizeBytes: number
}

export const DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
/** What an upload that ended in the middle left behind is removed when it is older than any upload can last. */
const ABANDONED_MS = 60 * 60 * 1000

/**
 * Documents below `<files>/documents/<first two hex digits>/<sha256>`. When `store` has returned, the file is there after any crash; when it has not,
 * there is at most something below `<files>/incoming` that nothing names.
 */
export class DocumentStore {
  readonly #documents: string
  readonly #incoming: string
  #ready: Promise<void> | undefined

  constructor(filesDirectory: string) {
    this.#documents = join(filesDirectory, 'documents')
    this.#incoming = join(filesDirectory, 'incoming')
  }

  /** Takes a document in and gives its hashes. The same content lies there once, whoever sends it. Throws TOO_LARGE. */
  async store(content: AsyncIterable<Uint8Array>): Promise<StoredFile> {
    await this.#prepare()
    const temporary = join(this.#incoming, uuid())
    try {
      const stored = await writeDurably(temporary, content)
      await this.#publish(temporary, stored)
      return stored
    } finally {
      await rm(temporary, { force: true })
    }
  }

  /** The content in pieces, the last of them only after the SHA-256 was found right. Throws DAMAGED for a file that is missing or not what it was. */
  async *read(sha256: string, sizeBytes: number): AsyncGenerator<Uint8Array> {
    const path = this.#pathOf(sha256)
    const found = await stat(path).catch(() => undefined)
    if (found?.size !== sizeBytes)
      throw damaged(sha256, found === undefined ? 'is missing' : `has ${found.size} bytes, not ${sizeBytes}`)
    const hash = createHash('sha256')
    let held: Uint8Array | undefined
    for await (const piece of createReadStream(path) as AsyncIterable<Uint8Array>) {
      hash.update(piece)
      if (held !== undefined) yield held
      held = piece
    }
    if (hash.digest('hex') !== sha256) throw damaged(sha256, 'holds something else')
    if (held !== undefined) yield held
  }

  async #publish(temporary: string, { sha256, sizeBytes }: StoredFile): Promise<void> {
    const directory = join(this.#documents, sha256.slice(0, 2))
    await mkdir(directory, { recursive: true })
    await syncDirectory(this.#documents)
    // A file that was damaged gives way to what it should be; one that is right is never touched again.
    if (!(await this.#isWhole(sha256, sizeBytes))) await rename(temporary, this.#pathOf(sha256))
    // Also when another upload of the same content was first: it may not have got this far yet.
    await syncDirectory(directory)
  }

  async #isWhole(sha256: string, sizeBytes: number): Promise<boolean> {
    try {
      for await (const _piece of this.read(sha256, sizeBytes));
      return true
    } catch (error) {
      if (error instanceof Refusal && error.code === 'DAMAGED') return false
      throw error
    }
  }

  #pathOf(sha256: string): string {
    return join(this.#documents, sha256.slice(0, 2), sha256)
  }

  async #prepare(): Promise<void> {
    this.#ready ??= makeDirectories(this.#documents, this.#incoming).catch((error: unknown) => {
      this.#ready = undefined
      throw error
    })
    await this.#ready
  }
}

async function makeDirectories(documents: string, incoming: string): Promise<void> {
  await makeDirectory(documents)
  await makeDirectory(incoming)
  for (const name of await readdir(incoming)) {
    const { mtimeMs } = await stat(join(incoming, name)).catch(() => ({ mtimeMs: Date.now() }))
    if (Date.now() - mtimeMs > ABANDONED_MS) await rm(join(incoming, name), { force: true })
  }
}

async function writeDurably(path: string, content: AsyncIterable<Uint8Array>): Promise<StoredFile> {
  const [sha256, sha1] = [createHash('sha256'), createHash('sha1')]
  const file = await open(path, 'wx', 0o640)
  try {
    const sizeBytes = await writeAll(file, content, [sha256, sha1])
    await file.sync()
    return { sha256: sha256.digest('hex'), sha1: sha1.digest('base64'), sizeBytes }
  } finally {
    await file.close()
  }
}

async function writeAll(file: FileHandle, content: AsyncIterable<Uint8Array>, hashes: readonly Hash[]): Promise<number> {
  let sizeBytes = 0
  for await (const piece of content) {
    sizeBytes += piece.length
    if (sizeBytes > DOCUMENT_BYTES_MAX)
      throw new Refusal('TOO_LARGE', `a document may have ${DOCUMENT_BYTES_MAX} bytes, and this one has more`)
    for (const hash of hashes) hash.update(piece)
    await file.writeFile(piece)
  }
  return sizeBytes
}

function damaged(sha256: string, found: string): Refusal {
  return new Refusal('DAMAGED', `the file of the document ${sha256} ${found}`, {
    hint: 'restore it from a backup of the files, or send it again',
  })
}
