import assert from 'node:assert'
import type pg from 'pg'

// COPY in text format (https://www.postgresql.org/docs/current/sql-copy.html): columns end with a tab, rows with a newline, \N is null; and in a
// column's text, backslash, newline, carriage return and tab are a backslash with a letter.

const TO_ESCAPE = /[\\\n\r\t]/
const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }

export type CopyValue = string | number | null

/** One row of COPY's text format. Throws for U+0000, which no text of PostgreSQL can hold. */
export function copyRow(values: readonly CopyValue[]): string {
  return `${values.map(copyText).join('\t')}\n`
}

function copyText(value: CopyValue): string {
  if (value === null) return '\\N'
  if (typeof value === 'number') return String(value)
  assert(!value.includes('\0'), 'PostgreSQL has no text with U+0000')
  return TO_ESCAPE.test(value) ? value.replaceAll(/[\\\n\r\t]/g, (each) => ESCAPES[each]!) : value
}

/** What `pg` has for COPY on its connection, and does not declare. */
interface CopyConnection {
  readonly stream: NodeJS.WritableStream & { readonly writableNeedDrain: boolean }
  query(text: string): void
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
  sendCopyFail(message: string): void
}

/** Runs `copy … from stdin` with these bytes. Fails as the server does, or as the source does; then nothing of it was stored. */
export async function copyIn(client: pg.Client, text: string, source: Iterable<Buffer>): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    client.query(new CopyIn(text, source, (error) => (error === undefined ? resolve() : reject(error))) as never)
  })
}

/** The protocol's side of it, as `pg` asks of whatever is given to query(): its methods are called with the server's messages. */
class CopyIn {
  readonly #text: string
  readonly #source: Iterable<Buffer>
  readonly #done: (error?: Error) => void
  #failure: Error | undefined

  constructor(text: string, source: Iterable<Buffer>, done: (error?: Error) => void) {
    this.#text = text
    this.#source = source
    this.#done = done
  }

  submit(connection: CopyConnection): void {
    connection.query(this.#text)
  }

  handleCopyInResponse(connection: CopyConnection): void {
    this.#send(connection).catch((error: unknown) => {
      this.#failure = error instanceof Error ? error : new Error(String(error))
      connection.sendCopyFail(this.#failure.message)
    })
  }

  async #send(connection: CopyConnection): Promise<void> {
    for (const chunk of this.#source) {
      // The server has refused a row already, or the connection has ended.
      if (this.#failure !== undefined) return
      connection.sendCopyFromChunk(chunk)
      if (connection.stream.writableNeedDrain) await drained(connection.stream)
    }
    connection.endCopyFrom()
  }

  handleError(error: Error): void {
    this.#failure ??= error
    this.#done(this.#failure)
  }

  handleReadyForQuery(): void {
    if (this.#failure === undefined) this.#done()
  }

  handleCommandComplete(): void {}
  handleRowDescription(): void {}
  handleDataRow(): void {}
  handlePortalSuspended(): void {}
  handleEmptyQuery(): void {}
}

async function drained(stream: NodeJS.WritableStream): Promise<void> {
  await new Promise<void>((resolve) => {
    const go = (): void => {
      for (const name of ['drain', 'close', 'error']) stream.removeListener(name, go)
      resolve()
    }
    for (const name of ['drain', 'close', 'error']) stream.once(name, go)
  })
}
