import { createHash } from 'node:crypto'
import { isUtf8 } from 'node:buffer'
import { assert } from '../assert.ts'
import { formatLsn, type Lsn } from './lsn.ts'

/** The first major version whose manifests (version 2) name the cluster. */
const SYSTEM_IDENTIFIER_FROM = 17

/** One file of a restored data directory. */
export interface ManifestFile {
  /** Relative to the data directory, `/` between names. Bytes when it is not UTF-8, as the file system gives it. */
  readonly path: string | Uint8Array
  readonly sizeBytes: number
  readonly modified: Date
  /** As `crc32c` gives it. */
  readonly crc32c: number
}

/** WAL that a server needs to start from these files. */
export interface ManifestWalRange {
  readonly timeline: number
  readonly startLsn: Lsn
  readonly endLsn: Lsn
}

/**
 * Writes a `backup_manifest` for PostgreSQL 13 and later, so that `pg_verifybackup` of the cluster's own major can judge a restored
 * directory. Pieces of text come as they are made and have to be stored in order as UTF-8: nothing is kept of the files but a hash.
 *
 *   const manifest = new BackupManifestWriter({ major, systemIdentifier })
 *   write(manifest.begin()); for each file: write(manifest.addFile(file)); write(manifest.end(ranges))
 *
 * One JSON object: "PostgreSQL-Backup-Manifest-Version", from 17 "System-Identifier", "Files", "WAL-Ranges", and last on a line of
 * its own "Manifest-Checksum": SHA-256 of all bytes before that line.
 */
export class BackupManifestWriter {
  readonly #major: number
  readonly #systemIdentifier: bigint
  readonly #hash = createHash('sha256')
  #state: 'new' | 'files' | 'ended' = 'new'
  #files = 0

  constructor({ major, systemIdentifier }: { major: number; systemIdentifier: bigint }) {
    this.#major = major
    this.#systemIdentifier = systemIdentifier
  }

  begin(): string {
    assert(this.#state === 'new', 'a manifest begins once')
    this.#state = 'files'
    if (this.#major < SYSTEM_IDENTIFIER_FROM) return this.#put('{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [')
    return this.#put(`{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": ${this.#systemIdentifier},\n"Files": [`)
  }

  addFile(file: ManifestFile): string {
    assert(this.#state === 'files', 'files are added between begin and end')
    const separator = this.#files === 0 ? '\n' : ',\n'
    this.#files++
    return this.#put(separator + formatFile(file))
  }

  end(ranges: readonly ManifestWalRange[]): string {
    assert(this.#state === 'files', 'a manifest ends once')
    this.#state = 'ended'
    const body = this.#put(`\n],\n"WAL-Ranges": [\n${ranges.map(formatRange).join(',\n')}\n],\n`)
    return `${body}"Manifest-Checksum": "${this.#hash.digest('hex')}"}\n`
  }

  #put(text: string): string {
    this.#hash.update(text)
    return text
  }
}

function formatFile({ path, sizeBytes, modified, crc32c }: ManifestFile): string {
  const parts = [
    formatPath(path),
    `"Size": ${sizeBytes}`,
    `"Last-Modified": "${formatTime(modified)}"`,
    '"Checksum-Algorithm": "CRC32C"',
    `"Checksum": "${formatCrc(crc32c)}"`,
  ]
  return `{ ${parts.join(', ')} }`
}

function formatPath(path: string | Uint8Array): string {
  if (typeof path === 'string') return `"Path": ${JSON.stringify(path)}`
  const bytes = Buffer.from(path)
  return isUtf8(bytes) ? `"Path": ${JSON.stringify(bytes.toString('utf8'))}` : `"Encoded-Path": "${bytes.toString('hex')}"`
}

/** `2026-11-21 03:00:00 GMT` */
function formatTime(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace('T', ' ')} GMT`
}

/** PostgreSQL prints the number's bytes as they lie in memory, the lowest first. */
function formatCrc(crc: number): string {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(crc)
  return bytes.toString('hex')
}

function formatRange({ timeline, startLsn, endLsn }: ManifestWalRange): string {
  return `{ "Timeline": ${timeline}, "Start-LSN": "${formatLsn(startLsn)}", "End-LSN": "${formatLsn(endLsn)}" }`
}
