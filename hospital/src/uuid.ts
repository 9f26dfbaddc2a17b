import { randomFillSync } from 'node:crypto'

const BATCH = 256
const random = Buffer.alloc(16 * BATCH)
let used = BATCH

/** A UUID of version 7 (RFC 9562): begins with the time, so that new rows lie together in an index; 74 bits are random. */
export function uuid(now: number = Date.now()): string {
  if (used === BATCH) {
    randomFillSync(random)
    used = 0
  }
  const bytes = random.subarray(used * 16, (used + 1) * 16)
  used += 1
  return uuidFrom(now, bytes)
}

/** The same from 16 given bytes, of which the first six are replaced by the time in ms. */
export function uuidFrom(ms: number, bytes: Buffer): string {
  bytes.writeUIntBE(ms, 0, 6)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x70, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

export function isUuid(text: string): boolean {
  return UUID.test(text)
}
