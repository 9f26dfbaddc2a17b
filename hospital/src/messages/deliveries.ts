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
 */
export class DeliveryLog implements AsyncDisposable {
  readonly #file: FileHandle
  readonly #ids = new Set<string>()
  #readBytes = 0
  /** What follows the last line's end: of a line that is being written now, or never was completed. */
  #rest = Buffer.alloc(0)

  private constructor(file: FileHandle) {
    this.#file = file
  }

  /** Opens the log below the hospital's home; makes it, durably, where it is not there. */
  static async open(home: string): Promise<DeliveryLog> {
    const path = join(home, 'outbound', 'deliveries.ndjson')
    await makeDirectory(dirname(path))
    const log = new DeliveryLog(await open(path, 'a+', 0o600))
    await syncDirectory(dirname(path))
    await log.#readOn()
    return log
  }

  /** Whether this message was delivered, ever. */
  async has(id: string): Promise<boolean> {
    await this.#readOn()
    return this.#ids.has(id) || idIn(this.#rest) === id
  }

  /** When it returns, the delivery is durable. When it throws, it may be: ask `has` before trying again. */
  async deliver(message: OutgoingMessage): Promise<void> {
    await this.#readOn()
    const line = `${JSON.stringify({ at: new Date().toISOString(), ...message })}\n`
    // A line that was cut off stays, on a line of its own.
    await this.#file.appendFile(this.#rest.length > 0 ? `\n${line}` : line)
    await this.#file.sync()
    this.#ids.add(message.id)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
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
      const id = idIn(bytes.subarray(from, end))
      if (id !== undefined) this.#ids.add(id)
      from = end + 1
    }
    this.#rest = Buffer.from(bytes.subarray(from))
  }
}

/** Undefined for a line that is not whole. */
function idIn(line: Buffer): string | undefined {
  try {
    const { id } = JSON.parse(line.toString('utf8')) as { id?: unknown }
    return typeof id === 'string' ? id : undefined
  } catch {
    return undefined
  }
}
