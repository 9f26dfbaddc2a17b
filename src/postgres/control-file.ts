import { Failure } from '../errors.ts'
import { crc32c } from './crc32c.ts'
import type { Lsn } from './lsn.ts'

/** Whether the server had been stopped, and what it did otherwise. PostgreSQL: DBState, in its order. */
const STATES = [
  'starting up',
  'shut down',
  'shut down in recovery',
  'shutting down',
  'in crash recovery',
  'in archive recovery',
  'in production',
] as const

const WAL_LEVELS = ['minimal', 'replica', 'logical'] as const

/** Bytes of the file; all but the first 300 or so are zeros, so that one disk sector holds it. */
export const CONTROL_FILE_BYTES = 8192

/** `global/pg_control`: what the cluster is, how it was built, and where its recovery begins. */
export interface ControlFile {
  readonly systemIdentifier: bigint
  readonly controlVersion: number
  readonly catalogVersion: number
  readonly state: (typeof STATES)[number]
  /** When the file was last written; PostgreSQL keeps whole seconds. */
  readonly time: Date
  /** Where the latest checkpoint's record is, and where replay from it begins. */
  readonly checkpointLsn: Lsn
  readonly redoLsn: Lsn
  readonly checkpointTime: Date
  readonly timeline: number
  readonly previousTimeline: number
  /** The next transaction's id with its epoch in the upper half. */
  readonly nextTransactionId: bigint
  /** During recovery: the cluster is consistent only from here on. Zero otherwise. */
  readonly minRecoveryLsn: Lsn
  readonly minRecoveryTimeline: number
  readonly walLevel: (typeof WAL_LEVELS)[number]
  /** Bytes of a page. */
  readonly blockSize: number
  /** Pages of a relation's segment file. */
  readonly relationSegmentBlocks: number
  readonly walBlockSize: number
  readonly walSegmentSize: number
  /** 0 when pages have no checksums, 1 when they have. */
  readonly dataChecksumVersion: number
  /** Only from PostgreSQL 18: whether `char` is signed. */
  readonly defaultCharSigned: boolean | undefined
}

/*
 * ControlFileData (pg_control.h) on 64-bit little-endian machines, bytes from the file's start; the same from 13 to 18 up to the
 * checksum version:
 *     0 system identifier (8)   8 control version (4)   12 catalog version (4)   16 state (4)   24 time (8)   32 checkpoint (8)
 *    40 copy of the checkpoint: redo (8)   48 timeline (4)   52 previous timeline (4)   64 next transaction (8)   104 time (8)
 *   136 minimum recovery point (8)   144 its timeline (4)   172 wal_level (4)
 *   216 block size (4)   220 blocks of a segment (4)   224 WAL block size (4)   228 WAL segment size (4)
 *   252 data checksum version (4)
 * then, from 18, whether char is signed (1); a nonce (32); the CRC-32C of all before it (4, aligned).
 */
const CRC_OFFSETS: ReadonlyMap<number, number> = new Map([
  [1300, 288],
  [1700, 288],
  [1800, 292],
])
const CHAR_SIGNED_OFFSET = 256

/**
 * Reads pg_control of PostgreSQL 13 to 18. Throws DATA_DIRECTORY_UNREADABLE when the version is another or the CRC is wrong; while
 * a server runs, the latter may be a read in the middle of a write, so read again before believing it.
 */
export function parseControlFile(bytes: Buffer): ControlFile {
  const controlVersion = bytes.length >= CONTROL_FILE_BYTES ? bytes.readUInt32LE(8) : undefined
  const crcOffset = controlVersion === undefined ? undefined : CRC_OFFSETS.get(controlVersion)
  if (controlVersion === undefined) throw unreadable(`it has ${bytes.length} bytes, expected ${CONTROL_FILE_BYTES}`)
  if (crcOffset === undefined)
    throw unreadable(`its version is ${controlVersion}, expected ${[...CRC_OFFSETS.keys()].join(', ')}`)
  const [found, wanted] = [bytes.readUInt32LE(crcOffset), crc32c(bytes.subarray(0, crcOffset))]
  if (found !== wanted) throw unreadable(`its CRC is ${hex(found)}, its contents have ${hex(wanted)}`)
  const state = STATES[bytes.readUInt32LE(16)]
  const walLevel = WAL_LEVELS[bytes.readUInt32LE(172)]
  if (state === undefined || walLevel === undefined) throw unreadable('its state or wal_level is unknown')
  return {
    systemIdentifier: bytes.readBigUInt64LE(0),
    controlVersion,
    catalogVersion: bytes.readUInt32LE(12),
    state,
    time: readSeconds(bytes, 24),
    checkpointLsn: bytes.readBigUInt64LE(32),
    redoLsn: bytes.readBigUInt64LE(40),
    timeline: bytes.readUInt32LE(48),
    previousTimeline: bytes.readUInt32LE(52),
    nextTransactionId: bytes.readBigUInt64LE(64),
    checkpointTime: readSeconds(bytes, 104),
    minRecoveryLsn: bytes.readBigUInt64LE(136),
    minRecoveryTimeline: bytes.readUInt32LE(144),
    walLevel,
    blockSize: bytes.readUInt32LE(216),
    relationSegmentBlocks: bytes.readUInt32LE(220),
    walBlockSize: bytes.readUInt32LE(224),
    walSegmentSize: bytes.readUInt32LE(228),
    dataChecksumVersion: bytes.readUInt32LE(252),
    defaultCharSigned: controlVersion >= 1800 ? bytes[CHAR_SIGNED_OFFSET] === 1 : undefined,
  }
}

/** The catalog version alone. It never changes, so that even a read in the middle of a write gives it. Throws DATA_DIRECTORY_UNREADABLE. */
export function readCatalogVersion(bytes: Buffer): number {
  if (bytes.length < CONTROL_FILE_BYTES) throw unreadable(`it has ${bytes.length} bytes, expected ${CONTROL_FILE_BYTES}`)
  return bytes.readUInt32LE(12)
}

function unreadable(reason: string): Failure {
  return new Failure('DATA_DIRECTORY_UNREADABLE', `cannot read pg_control: ${reason}`, {
    hint: 'is this the data directory of a PostgreSQL 15, 16, 17 or 18, on a machine with the same byte order?',
  })
}

function readSeconds(bytes: Buffer, offset: number): Date {
  return new Date(Number(bytes.readBigInt64LE(offset)) * 1000)
}

function hex(value: number): string {
  return value.toString(16).padStart(8, '0')
}
