import { assert } from '../assert.ts'
import type { Lsn } from './lsn.ts'

/** One WAL segment file: which timeline, which number, how large. PostgreSQL: xlog_internal.h, XLogFileName. */
export interface WalSegment {
  readonly timeline: number
  readonly number: bigint
  /** Bytes; a power of two from 1 MiB to 1 GiB. */
  readonly sizeBytes: number
}

const SEGMENT_NAME = /^[0-9A-F]{24}$/

/** The segment that holds the byte at `lsn`. */
export function segmentAt(lsn: Lsn, timeline: number, sizeBytes: number): WalSegment {
  return { timeline, number: lsn / BigInt(sizeBytes), sizeBytes }
}

/** `000000010000000A000000FF`: timeline, then the segment's number split by how many segments make 4 GiB. */
export function segmentName(segment: WalSegment): string {
  const perLog = 0x100000000n / BigInt(segment.sizeBytes)
  const parts = [BigInt(segment.timeline), segment.number / perLog, segment.number % perLog]
  return parts.map((part) => part.toString(16).toUpperCase().padStart(8, '0')).join('')
}

/** The reverse of `segmentName`; undefined when the name is not that of a segment. */
export function parseSegmentName(name: string, sizeBytes: number): WalSegment | undefined {
  if (!SEGMENT_NAME.test(name)) return undefined
  const perLog = 0x100000000n / BigInt(sizeBytes)
  const [timeline, log, seg] = [0, 8, 16].map((at) => BigInt(`0x${name.slice(at, at + 8)}`)) as [bigint, bigint, bigint]
  if (seg >= perLog) return undefined
  return { timeline: Number(timeline), number: log * perLog + seg, sizeBytes }
}

/** LSN of the segment's first byte. */
export function segmentStart(segment: WalSegment): Lsn {
  return segment.number * BigInt(segment.sizeBytes)
}

/** LSN just past the segment's last byte. */
export function segmentEnd(segment: WalSegment): Lsn {
  return segmentStart(segment) + BigInt(segment.sizeBytes)
}

/** The segment after this one, on the same timeline. */
export function nextSegment(segment: WalSegment): WalSegment {
  return { ...segment, number: segment.number + 1n }
}

/** Offset of `lsn` inside its segment, in bytes. */
export function segmentOffset(lsn: Lsn, sizeBytes: number): number {
  assert(sizeBytes > 0 && (sizeBytes & (sizeBytes - 1)) === 0, `segment size ${sizeBytes} is a power of two`)
  return Number(lsn % BigInt(sizeBytes))
}
