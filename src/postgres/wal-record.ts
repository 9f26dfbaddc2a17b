import type { Lsn } from './lsn.ts'

/** Bytes of a WAL page. A server built with another WAL block size is not supported: `parseControlFile` tells. */
export const WAL_PAGE_BYTES = 8192

/** PostgreSQL's major version by the magic number of its WAL pages (xlog_internal.h). */
const MAJOR_OF_MAGIC: ReadonlyMap<number, number> = new Map([
  [0xd110, 15],
  [0xd113, 16],
  [0xd116, 17],
  [0xd118, 18],
])

const FIRST_IS_CONTINUATION = 0x0001
const LONG_HEADER = 0x0002
const FIRST_IS_OVERWRITE = 0x0008
const ALL_PAGE_FLAGS = 0x000f

export const SHORT_HEADER_BYTES = 24
/** The first page of each segment. */
export const LONG_HEADER_BYTES = 40

export interface WalPageHeader {
  readonly major: number
  /** Where this page lies by its own account: pages of a recycled segment tell another place. */
  readonly lsn: Lsn
  readonly timeline: number
  /** How many bytes of a record that began on an earlier page are still to come; 0 when this page begins with a record. */
  readonly remainingBytes: number
  /** The record that began on the page before was never finished (a crash): a new one begins here. */
  readonly abandonsRecord: boolean
  readonly segment:
    { readonly systemIdentifier: bigint; readonly segmentSizeBytes: number; readonly pageBytes: number } | undefined
}

/**
 * Page header (XLogPageHeaderData), little-endian:
 *   0 magic (2)   2 flags (2)   4 timeline (4)   8 LSN of this page (8)   16 remaining bytes (4)   20 nothing (4)
 * and on a segment's first page: 24 system identifier (8)   32 segment size (4)   36 page size (4).
 * Undefined when it is no header of a version that is known.
 */
export function parseWalPageHeader(view: DataView, at: number): WalPageHeader | undefined {
  const major = MAJOR_OF_MAGIC.get(view.getUint16(at, true))
  const flags = view.getUint16(at + 2, true)
  if (major === undefined || (flags & ~ALL_PAGE_FLAGS) !== 0) return undefined
  const continues = (flags & FIRST_IS_CONTINUATION) !== 0
  const remainingBytes = view.getUint32(at + 16, true)
  if (continues !== remainingBytes > 0) return undefined
  const isLong = (flags & LONG_HEADER) !== 0
  if (isLong && view.byteLength < at + LONG_HEADER_BYTES) return undefined
  return {
    major,
    timeline: view.getUint32(at + 4, true),
    lsn: view.getBigUint64(at + 8, true),
    remainingBytes,
    abandonsRecord: (flags & FIRST_IS_OVERWRITE) !== 0,
    segment: isLong
      ? {
          systemIdentifier: view.getBigUint64(at + 24, true),
          segmentSizeBytes: view.getUint32(at + 32, true),
          pageBytes: view.getUint32(at + 36, true),
        }
      : undefined,
  }
}

/*
 * Record header (XLogRecord), little-endian, at a multiple of 8:
 *   0 total length (4)   4 transaction id (4)   8 LSN of the record before (8)   16 info (1)   17 resource manager (1)
 *   18 nothing (2)   20 CRC-32C of the rest of the record, then of bytes 0 to 19 (4)
 */
export const RECORD_HEADER_BYTES = 24
/** Everything but the CRC itself. */
export const RECORD_CHECKED_HEADER_BYTES = 20

/** No record is longer: PostgreSQL cannot hold a larger one in memory. */
export const RECORD_BYTES_MAX = 1 << 30

const RESOURCE_XLOG = 0
const RESOURCE_TRANSACTION = 1
const RESOURCE_TABLESPACE = 5
const RESOURCE_BUILT_IN_MAX = 21
const RESOURCE_CUSTOM_MIN = 128

const XLOG_CHECKPOINT_SHUTDOWN = 0x00
const XLOG_CHECKPOINT_ONLINE = 0x10
const XLOG_SWITCH = 0x40
const XLOG_RESTORE_POINT = 0x70
const XLOG_END_OF_RECOVERY = 0x90

const TABLESPACE_CREATE = 0x00

const TRANSACTION_COMMIT = 0x00
const TRANSACTION_PREPARE = 0x10
const TRANSACTION_ABORT = 0x20
const TRANSACTION_COMMIT_PREPARED = 0x30
const TRANSACTION_ABORT_PREPARED = 0x40
const TRANSACTION_OPERATION = 0x70
const TRANSACTION_HAS_INFO = 0x80

/** What the decoder tells of a record that matters to recovery. Times are microseconds since 2000-01-01 in UTC. */
export type WalFact =
  | {
      readonly kind: 'commit' | 'abort'
      readonly xid: number | undefined
      readonly timeMicros: bigint
      readonly prepared: boolean
    }
  | { readonly kind: 'prepare'; readonly xid: number; readonly timeMicros: bigint }
  | { readonly kind: 'restore-point'; readonly name: string; readonly timeMicros: bigint }
  | { readonly kind: 'checkpoint'; readonly shutdown: boolean; readonly redoLsn: Lsn; readonly timeline: number }
  | { readonly kind: 'end-of-recovery'; readonly timeline: number; readonly previousTimeline: number }
  /** Replayed, it makes the tablespace in this very place; `path` is empty for one in place. */
  | { readonly kind: 'tablespace'; readonly oid: string; readonly path: string }
  | { readonly kind: 'switch' }

export function isResourceManager(id: number): boolean {
  return id <= RESOURCE_BUILT_IN_MAX || id >= RESOURCE_CUSTOM_MIN
}

/** How many bytes of the record `readFact` needs: 0 for the great mass of records, of which nothing is kept. */
export function factBytes(resource: number, info: number, totalBytes: number): number {
  if (isTablespaceCreate(resource, info)) return Math.min(totalBytes, TABLESPACE_BYTES_MAX)
  if (resource > RESOURCE_TRANSACTION) return 0
  if (resource === RESOURCE_XLOG) return isFactOfXlog(info & 0xf0) ? Math.min(totalBytes, FACT_BYTES) : 0
  const operation = info & TRANSACTION_OPERATION
  if (operation === TRANSACTION_COMMIT_PREPARED || operation === TRANSACTION_ABORT_PREPARED) {
    return Math.min(totalBytes, PREPARED_BYTES_MAX)
  }
  return operation <= TRANSACTION_ABORT ? Math.min(totalBytes, FACT_BYTES) : 0
}

/** Enough for every fact but the end of a prepared transaction, whose id comes after lists of any length. */
const FACT_BYTES = 128
/** A path has at most 1024 bytes. */
const TABLESPACE_BYTES_MAX = 2048
/** Of a longer one (a quarter of a million subtransactions) the time is told, and the id is not. */
const PREPARED_BYTES_MAX = 1 << 20

/** Whether a record makes a tablespace, by its header. */
export function isTablespaceCreate(resource: number, info: number): boolean {
  return resource === RESOURCE_TABLESPACE && (info & 0xf0) === TABLESPACE_CREATE
}

/**
 * Whether the end of a record whose beginning was not seen may be that of one that makes a tablespace. Its header, of which bytes 16 and 17 tell,
 * begins at a multiple of 8: eight or sixteen bytes of it lie before; of one that lies there as a whole, its beginning told.
 */
export function mayEndTablespaceCreate(rest: Uint8Array, restBytes: number): boolean {
  if (restBytes > TABLESPACE_BYTES_MAX) return false
  return [0, 8].some((at) => at + 1 < restBytes && isTablespaceCreate(rest[at + 1]!, rest[at]!))
}

function isFactOfXlog(info: number): boolean {
  return (
    info === XLOG_SWITCH ||
    info === XLOG_RESTORE_POINT ||
    info === XLOG_CHECKPOINT_ONLINE ||
    info === XLOG_CHECKPOINT_SHUTDOWN ||
    info === XLOG_END_OF_RECOVERY
  )
}

/** Where a record is: `heldBytes` of it, at least `factBytes`, lie in `view` from `at`. */
export interface HeldRecord {
  readonly view: DataView
  readonly at: number
  readonly heldBytes: number
  readonly major: number
}

/** The fact in a record of which `factBytes` was not 0; undefined when its contents are not what its kind promises. */
export function readFact({ view, at, heldBytes, major }: HeldRecord): WalFact | undefined {
  const data = mainData(view, at, at + heldBytes)
  if (data === undefined) return undefined
  const info = view.getUint8(at + 16)
  const xid = view.getUint32(at + 4, true)
  try {
    switch (view.getUint8(at + 17)) {
      case RESOURCE_XLOG:
        return readXlogFact(data, info & 0xf0)
      case RESOURCE_TABLESPACE:
        // xl_tblspc_create_rec: 0 oid (4)   4 path, ended by a zero
        return { kind: 'tablespace', oid: String(data.getUint32(0, true)), path: readName(data, 4, data.byteLength - 4) }
      default:
        return readTransactionFact({ data, info, xid, major })
    }
  } catch (error) {
    // The contents say they are longer than the record is.
    if (error instanceof RangeError) return undefined
    throw error
  }
}

/** Record parts that may come before the main data: an id, then what belongs to it. Block references do not occur in our facts. */
const PART_DATA_SHORT = 255
const PART_DATA_LONG = 254
const PART_ORIGIN = 253
const PART_TOP_TRANSACTION = 252

function mainData(view: DataView, record: number, end: number): DataView | undefined {
  let at = record + RECORD_HEADER_BYTES
  while (at < end) {
    const part = view.getUint8(at)
    if (part === PART_DATA_SHORT) return new DataView(view.buffer, view.byteOffset + at + 2, Math.max(0, end - at - 2))
    if (part === PART_DATA_LONG) return new DataView(view.buffer, view.byteOffset + at + 5, Math.max(0, end - at - 5))
    if (part !== PART_ORIGIN && part !== PART_TOP_TRANSACTION) return undefined
    at += part === PART_ORIGIN ? 3 : 5
  }
  // A switch has no data at all.
  return new DataView(view.buffer, view.byteOffset + at, 0)
}

function readXlogFact(data: DataView, info: number): WalFact | undefined {
  switch (info) {
    case XLOG_SWITCH:
      return { kind: 'switch' }
    case XLOG_RESTORE_POINT:
      // xl_restore_point: 0 time (8)   8 name (64, ended by zero).
      return { kind: 'restore-point', timeMicros: data.getBigInt64(0, true), name: readName(data, 8, 64) }
    case XLOG_END_OF_RECOVERY:
      // xl_end_of_recovery: 0 time (8)   8 timeline (4)   12 previous timeline (4).
      return { kind: 'end-of-recovery', timeline: data.getUint32(8, true), previousTimeline: data.getUint32(12, true) }
    case XLOG_CHECKPOINT_ONLINE:
    case XLOG_CHECKPOINT_SHUTDOWN:
      // CheckPoint: 0 redo (8)   8 timeline (4) ...
      return {
        kind: 'checkpoint',
        shutdown: info === XLOG_CHECKPOINT_SHUTDOWN,
        redoLsn: data.getBigUint64(0, true),
        timeline: data.getUint32(8, true),
      }
    default:
      return undefined
  }
}

function readName(data: DataView, at: number, size: number): string {
  const bytes = new Uint8Array(data.buffer, data.byteOffset + at, size)
  const length = bytes.indexOf(0)
  return new TextDecoder().decode(bytes.subarray(0, length < 0 ? size : length))
}

interface TransactionRecord {
  readonly data: DataView
  readonly info: number
  readonly xid: number
  readonly major: number
}

function readTransactionFact({ data, info, xid, major }: TransactionRecord): WalFact | undefined {
  const operation = info & TRANSACTION_OPERATION
  switch (operation) {
    case TRANSACTION_PREPARE:
      // xl_xact_prepare: 0 magic (4)   4 length (4)   8 transaction id (4)   12 database (4)   16 time (8) ...
      return { kind: 'prepare', xid: data.getUint32(8, true), timeMicros: data.getBigInt64(16, true) }
    case TRANSACTION_COMMIT:
    case TRANSACTION_ABORT:
      return {
        kind: operation === TRANSACTION_COMMIT ? 'commit' : 'abort',
        xid,
        timeMicros: data.getBigInt64(0, true),
        prepared: false,
      }
    case TRANSACTION_COMMIT_PREPARED:
    case TRANSACTION_ABORT_PREPARED:
      return {
        kind: operation === TRANSACTION_COMMIT_PREPARED ? 'commit' : 'abort',
        xid: readPreparedXid({ data, info, xid, major }),
        timeMicros: data.getBigInt64(0, true),
        prepared: true,
      }
    default:
      return undefined
  }
}

const HAS_DATABASE = 1 << 0
const HAS_SUBTRANSACTIONS = 1 << 1
const HAS_RELATIONS = 1 << 2
const HAS_INVALIDATIONS = 1 << 3
const HAS_TWO_PHASE = 1 << 4
const HAS_DROPPED_STATISTICS = 1 << 8

/**
 * xl_xact_commit and xl_xact_abort: time (8), what follows (4), then each part that is there, in this order: database and
 * tablespace (8); lists, as a count (4) and entries: subtransactions (4 each), relations (12), dropped statistics (12, from 18: 16),
 * invalidations (16); the prepared transaction's id (4). Undefined when it lies beyond what was held of the record.
 */
function readPreparedXid({ data, info, major }: TransactionRecord): number | undefined {
  if ((info & TRANSACTION_HAS_INFO) === 0) return undefined
  const parts = data.getUint32(8, true)
  if ((parts & HAS_TWO_PHASE) === 0) return undefined
  const lists = [
    [HAS_SUBTRANSACTIONS, 4],
    [HAS_RELATIONS, 12],
    [HAS_DROPPED_STATISTICS, major >= 18 ? 16 : 12],
    [HAS_INVALIDATIONS, 16],
  ] as const
  let at = (parts & HAS_DATABASE) === 0 ? 12 : 20
  for (const [part, entryBytes] of lists) {
    if ((parts & part) === 0) continue
    if (at + 4 > data.byteLength) return undefined
    at += 4 + data.getUint32(at, true) * entryBytes
  }
  return at + 4 > data.byteLength ? undefined : data.getUint32(at, true)
}
