import { open, readFile, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure, systemErrorCode } from '../../errors.ts'
import { parseControlFile, type ControlFile } from '../../postgres/control-file.ts'
import { formatLsn } from '../../postgres/lsn.ts'
import { historyFileName, parseHistoryFileName } from '../../postgres/timeline-history.ts'
import { LONG_HEADER_BYTES, parseWalPageHeader } from '../../postgres/wal-record.ts'
import { parseSegmentName, segmentName, segmentStart, type WalSegment } from '../../postgres/wal-segment.ts'

// What PostgreSQL hands to archive_command, told apart by name (xlog_internal.h) and held against the cluster that it is of.

export type ArchivedName =
  | { readonly kind: 'segment' | 'partial'; readonly segment: string }
  | { readonly kind: 'history'; readonly timeline: number }
  /** The label of a backup that some tool took. */
  | { readonly kind: 'label' }

const SEGMENT = /^([0-9A-F]{24})(\.partial)?$/
const LABEL = /^[0-9A-F]{24}\.[0-9A-F]{8}\.backup$/
const READ_BYTES = 1024 * 1024
/** pg_control is written in place: a read may come in the middle. */
const CONTROL_READS = 10
const CONTROL_RETRY_MS = 20

/** What a file of this name is; undefined for what PostgreSQL does not archive. */
export function parseArchivedName(name: string): ArchivedName | undefined {
  const match = SEGMENT.exec(name)
  if (match !== null) return { kind: match[2] === undefined ? 'segment' : 'partial', segment: match[1]! }
  const timeline = parseHistoryFileName(name)
  if (timeline !== undefined) return { kind: 'history', timeline }
  return LABEL.test(name) ? { kind: 'label' } : undefined
}

/** The cluster that a WAL file belongs to. */
export interface ArchivedCluster {
  readonly systemIdentifier: string
  readonly major: number
  readonly segmentSize: number
}

/** What the data directory says of its cluster; undefined when it is not there (its disk is lost, and WAL is rescued from elsewhere). */
export async function readArchivedCluster(dataDirectory: string): Promise<ArchivedCluster | undefined> {
  const version = await readUnlessGone(join(dataDirectory, 'PG_VERSION'))
  const control = await readControlFile(join(dataDirectory, 'global/pg_control'))
  if (version === undefined || control === undefined) return undefined
  const major = Number.parseInt(version.toString('utf8'), 10)
  return { systemIdentifier: control.systemIdentifier.toString(), major, segmentSize: control.walSegmentSize }
}

/** A segment in a file, as the header of its first page has it. Close it. */
export class SegmentFile implements AsyncDisposable {
  readonly segment: WalSegment
  readonly cluster: ArchivedCluster
  readonly #file: FileHandle

  private constructor(file: FileHandle, segment: WalSegment, cluster: ArchivedCluster) {
    this.#file = file
    this.segment = segment
    this.cluster = cluster
  }

  /** Throws WAL_INVALID when the file cannot be read or is not the segment that `name` says. */
  static async open(path: string, name: string): Promise<SegmentFile> {
    const file = await openArchived(path)
    try {
      const { segment, cluster } = await checkSegment(file, path, name)
      return new SegmentFile(file, segment, cluster)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** The bytes [from, to). */
  async *read(from = 0, to = this.segment.sizeBytes): AsyncGenerator<Buffer> {
    for (let at = from; at < to;) {
      const { buffer, bytesRead } = await this.#file.read(Buffer.allocUnsafe(Math.min(READ_BYTES, to - at)), { position: at })
      if (bytesRead === 0) throw invalid(segmentName(this.segment), `it ends at byte ${at}`)
      yield buffer.subarray(0, bytesRead)
      at += bytesRead
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

/** The text of the history of a segment's timeline, from beside the segment. Throws WAL_INVALID when there is none. */
export async function readHistoryBeside(path: string, timeline: number): Promise<string> {
  if (timeline === 1) return ''
  const name = historyFileName(timeline)
  const text = await readUnlessGone(join(dirname(path), name))
  if (text !== undefined) return text.toString('utf8')
  throw new Failure('WAL_INVALID', `cannot archive "${basename(path)}": "${name}" is not beside it`, {
    hint: 'it says which timeline the segment belongs to: is the file in the pg_wal directory of its server?',
  })
}

/** Reads a file that PostgreSQL asked to have archived. Throws WAL_INVALID. */
export async function readArchived(path: string): Promise<Buffer> {
  const file = await openArchived(path)
  try {
    return await file.readFile()
  } finally {
    await file.close()
  }
}

async function openArchived(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r')
  } catch (cause) {
    throw new Failure('WAL_INVALID', `cannot archive "${path}": ${systemErrorCode(cause) ?? String(cause)}`, {
      hint: 'archive_command gives %p, relative to the data directory; may this user read it?',
      cause,
    })
  }
}

async function checkSegment(
  file: FileHandle,
  path: string,
  name: string,
): Promise<{ segment: WalSegment; cluster: ArchivedCluster }> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(LONG_HEADER_BYTES), { position: 0 })
  const { size } = await file.stat()
  const shown = basename(path)
  const header =
    bytesRead < LONG_HEADER_BYTES ? undefined : parseWalPageHeader(new DataView(buffer.buffer, buffer.byteOffset, bytesRead), 0)
  if (header?.segment === undefined) throw invalid(shown, 'it does not begin with the header of a segment')
  const { segmentSizeBytes, systemIdentifier } = header.segment
  if (size !== segmentSizeBytes) throw invalid(shown, `it has ${size} bytes, its header says ${segmentSizeBytes}`)
  const segment = parseSegmentName(name, segmentSizeBytes)
  if (segment === undefined) throw invalid(shown, `no segment of ${segmentSizeBytes} bytes has this name`)
  if (header.lsn !== segmentStart(segment)) {
    throw invalid(shown, `its header says LSN ${formatLsn(header.lsn)}, its name ${formatLsn(segmentStart(segment))}`)
  }
  // The first segment of a timeline holds the parent's WAL up to where it was left.
  if (header.timeline > segment.timeline) {
    throw invalid(shown, `its header says timeline ${header.timeline}, its name ${segment.timeline}`)
  }
  const cluster = { systemIdentifier: systemIdentifier.toString(), major: header.major, segmentSize: segmentSizeBytes }
  return { segment, cluster }
}

function invalid(name: string, what: string): Failure {
  return new Failure('WAL_INVALID', `cannot archive "${name}": ${what}`, {
    hint: 'the file is not the WAL that its name says: nothing was stored. Look at the disk and at the server log',
  })
}

async function readControlFile(path: string): Promise<ControlFile | undefined> {
  for (let reads = 1; ; reads += 1) {
    const bytes = await readUnlessGone(path)
    if (bytes === undefined) return undefined
    try {
      return parseControlFile(bytes)
    } catch (error) {
      if (reads === CONTROL_READS) throw error
    }
    await delay(CONTROL_RETRY_MS)
  }
}

async function readUnlessGone(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path)
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (code === 'ENOENT') return undefined
    throw new Failure('DATA_DIRECTORY_UNREADABLE', `cannot read "${path}": ${code ?? String(cause)}`, {
      hint: 'archive_command runs as the account of the server: check "dataDirectory" in the configuration',
      cause,
    })
  }
}
