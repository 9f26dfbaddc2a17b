import { open, type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { makeDirectory, syncDirectory } from '../durable.ts'
import type { MessageKind } from './message.ts'

/** A message on its way out. */
export interface OutgoingMessage {
  readonly id: string
  readonly facility: string
  readonly kind: MessageKind
  readonly patient: string | null
  readonly recipient: string
  readonly body: string
}

const READ_BYTES = 1024 * 1024

/**
 * The world outside: what was delivered, as lines of JSON in a file that is only ever appended to, beside the database and not in it. It knows the ids of all
 * that it has taken (about 100 bytes each in memory), also of what other processes wrote, so a message is delivered once, whatever the database has forgotten.
 * Only where the disk fails it may be delivered twice: what may not be durable counts as not delivered.
 */
export class DeliveryLog implements AsyncDisposable {
  readonly #path: string
  #file: FileHandle
  readonly #ids = new Set<string>()
  /** Of which a line may be in the file that will never be on the disk, and nothing in the file says so. */
  readonly #doubted = new Set<string>()
  #readBytes = 0
  /** As far as what was read is durable. */
  #syncedBytes = 0
  /** What follows the last line's end: of a line that is being written now, or never was completed. */
  #rest = Buffer.alloc(0)

  private constructor(path: string, file: FileHandle) {
    this.#path = path
    this.#file = file
  }

  /** Opens the log below the hospital's home; makes it, durably, where it is not there. What it reads is durable when it returns. */
  static async open(home: string): Promise<DeliveryLog> {
    const path = join(home, 'outbound', 'deliveries.ndjson')
    await makeDirectory(dirname(path))
    const log = new DeliveryLog(path, await openFile(path))
    try {
      await syncDirectory(dirname(path))
      await log.#readOn()
      await log.#sync()
      return log
    } catch (error) {
      await log[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Whether this message was delivered, ever, and durably. */
  async has(id: string): Promise<boolean> {
    await this.#readOn()
    if (this.#doubted.has(id) || !(this.#ids.has(id) || idIn(this.#rest) === id)) return false
    if (this.#readBytes === this.#syncedBytes) return true
    // Whoever wrote it may have been killed before the sync.
    await this.#orDoubted(id, async () => this.#sync())
    return true
  }

  /** When it returns, the delivery is durable. When it throws, there was none, although somebody may have got the message: it is to be delivered again. */
  async deliver(message: OutgoingMessage): Promise<void> {
    await this.#readOn()
    const line = `${JSON.stringify({ at: new Date().toISOString(), ...message })}\n`
    await this.#orDoubted(message.id, async () => {
      // A line that was cut off stays, on a line of its own.
      await this.#file.appendFile(this.#rest.length > 0 ? `\n${line}` : line)
      await this.#file.sync()
    })
    this.#doubted.delete(message.id)
    this.#ids.add(message.id)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }

  async #sync(): Promise<void> {
    const upto = this.#readBytes
    await this.#file.sync()
    this.#syncedBytes = upto
  }

  async #orDoubted(id: string, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      await this.#doubt(id)
      throw error
    }
  }

  /**
   * After a sync that failed, the kernel shows a line until the power goes that is not on the disk, and the next sync succeeds. So what undoes the line is written
   * behind it, through another descriptor: every process sees both, and after a loss of power the line is either on the disk or gone.
   */
  async #doubt(id: string): Promise<void> {
    try {
      const file = await openFile(this.#path)
      await this.#file.close().catch(() => undefined)
      this.#file = file
      await file.appendFile(`\n${JSON.stringify({ at: new Date().toISOString(), doubted: id })}\n`)
    } catch {
      // The disk does not take that either: this process knows, until it has delivered the message.
      this.#doubted.add(id)
    }
  }

  async #readOn(): Promise<void> {
    const { size } = await this.#file.stat()
    while (this.#readBytes < size) {
      const { bytesRead, buffer } = await this.#file.read(Buffer.alloc(READ_BYTES), 0, READ_BYTES, this.#readBytes)
      if (bytesRead === 0) return
      this.#readBytes += bytesRead
      this.#take(Buffer.concat([this.#rest, buffer.subarray(0, bytesRead)]))
    }
  }

  #take(bytes: Buffer): void {
    let from = 0
    for (let end = bytes.indexOf('\n'); end >= 0; end = bytes.indexOf('\n', from)) {
      const line = jsonIn(bytes.subarray(from, end))
      if (typeof line.id === 'string') this.#ids.add(line.id)
      if (typeof line.doubted === 'string') this.#ids.delete(line.doubted)
      from = end + 1
    }
    this.#rest = Buffer.from(bytes.subarray(from))
  }
}

async function openFile(path: string): Promise<FileHandle> {
  return await open(path, 'a+', 0o600)
}

/** Undefined for a line that is not whole. */
function idIn(line: Buffer): string | undefined {
  const { id } = jsonIn(line)
  return typeof id === 'string' ? id : undefined
}

/** Nothing of a line that is not whole. */
function jsonIn(line: Buffer): { readonly id?: unknown; readonly doubted?: unknown } {
  try {
    const parsed: unknown = JSON.parse(line.toString('utf8'))
    return typeof parsed === 'object' && parsed !== null ? parsed : {}
  } catch {
    return {}
  }
}
