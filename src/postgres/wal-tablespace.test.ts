import assert from 'node:assert/strict'
import test from 'node:test'
import { WalDecoder } from './wal-decoder.ts'
import { LONG_HEADER_BYTES, RECORD_HEADER_BYTES, SHORT_HEADER_BYTES, WAL_PAGE_BYTES } from './wal-record.ts'

// A record that goes over a segment's end is seen as a whole by nobody who looks at one segment alone, as a push does.

const SEGMENT = 1 << 20
const START = BigInt(SEGMENT) * 5n
const HEAP = 10
const TABLESPACE = 5

/** Two segments of WAL: a record of another kind that ends `before` bytes before the first one's end, then the record. */
function twoSegments(record: Buffer, before: number): Buffer {
  const writer = new WalWriter()
  const pages = SEGMENT / WAL_PAGE_BYTES
  const room = SEGMENT - LONG_HEADER_BYTES - (pages - 1) * SHORT_HEADER_BYTES
  writer.add(recordOf(HEAP, Buffer.alloc(room - before - RECORD_HEADER_BYTES - 5)))
  writer.add(record)
  return writer.bytes
}

function recordOf(resource: number, data: Buffer): Buffer {
  const isLong = data.length > 255
  const header = Buffer.alloc(RECORD_HEADER_BYTES + (isLong ? 5 : 2))
  header[16] = 0
  header[17] = resource
  header[RECORD_HEADER_BYTES] = isLong ? 254 : 255
  if (isLong) header.writeUInt32LE(data.length, RECORD_HEADER_BYTES + 1)
  else header[RECORD_HEADER_BYTES + 1] = data.length
  const record = Buffer.concat([header, data])
  record.writeUInt32LE(record.length, 0)
  return record
}

function createTablespace(path: string): Buffer {
  const oid = Buffer.alloc(4)
  oid.writeUInt32LE(16_400)
  return recordOf(TABLESPACE, Buffer.concat([oid, Buffer.from(`${path}\0`)]))
}

class WalWriter {
  readonly bytes = Buffer.alloc(2 * SEGMENT)
  #at = 0
  #previous = 0n

  add(record: Buffer): void {
    this.#at += -this.#at & 7
    if (this.#at % WAL_PAGE_BYTES === 0) this.#header(0)
    const start = START + BigInt(this.#at)
    record.writeBigUInt64LE(this.#previous, 8)
    this.#previous = start
    for (let done = 0; done < record.length;) {
      if (this.#at % WAL_PAGE_BYTES === 0) this.#header(record.length - done)
      const taken = Math.min(record.length - done, WAL_PAGE_BYTES - (this.#at % WAL_PAGE_BYTES))
      record.copy(this.bytes, this.#at, done, done + taken)
      this.#at += taken
      done += taken
    }
  }

  #header(remaining: number): void {
    const isLong = this.#at % SEGMENT === 0
    this.bytes.writeUInt16LE(0xd110, this.#at)
    this.bytes.writeUInt16LE((isLong ? 2 : 0) | (remaining > 0 ? 1 : 0), this.#at + 2)
    this.bytes.writeUInt32LE(1, this.#at + 4)
    this.bytes.writeBigUInt64LE(START + BigInt(this.#at), this.#at + 8)
    this.bytes.writeUInt32LE(remaining, this.#at + 16)
    if (isLong) {
      this.bytes.writeBigUInt64LE(77n, this.#at + 24)
      this.bytes.writeUInt32LE(SEGMENT, this.#at + 32)
      this.bytes.writeUInt32LE(WAL_PAGE_BYTES, this.#at + 36)
    }
    this.#at += isLong ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES
  }
}

/** What is noted of each segment when each is looked at by itself, in pieces of a size. */
function noted(bytes: Buffer, pieceBytes: number): boolean[] {
  return [0, 1].map((number) => {
    const startLsn = START + BigInt(number * SEGMENT)
    const decoder = new WalDecoder({ startLsn, segmentSizeBytes: SEGMENT })
    for (let at = 0; at < SEGMENT; at += pieceBytes) {
      decoder.feed(
        startLsn + BigInt(at),
        bytes.subarray(number * SEGMENT + at, number * SEGMENT + Math.min(SEGMENT, at + pieceBytes)),
      )
    }
    return decoder.takeSummary().tablespaces
  })
}

test('a record that makes a tablespace is noted with one of two segments, wherever the end of the first cuts it', () => {
  const record = createTablespace(`/srv/${'x'.repeat(100)}`)
  for (let before = 0; before <= record.length + 16; before += 8) {
    const bytes = twoSegments(record, before)
    for (const pieceBytes of [SEGMENT, 4099]) {
      const [first, second] = noted(bytes, pieceBytes)
      assert.ok(first === true || second === true, `${before} bytes before the end, in pieces of ${pieceBytes}`)
      if (before === 0) assert.deepEqual([first, second], [false, true])
      if (before > record.length + 8) assert.deepEqual([first, second], [true, false])
    }
  }
})

test('other records are not taken for one, and neither is one of a tablespace in the data directory', () => {
  for (const record of [recordOf(HEAP, Buffer.alloc(200, 7)), recordOf(HEAP, Buffer.alloc(9000, 7))]) {
    for (let before = 0; before <= 240; before += 8) assert.deepEqual(noted(twoSegments(record, before), SEGMENT), [false, false])
  }
  assert.deepEqual(noted(twoSegments(createTablespace(''), 512), SEGMENT), [false, false])
})
