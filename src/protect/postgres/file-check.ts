import { open, readdir } from 'node:fs/promises'
import { join, sep } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { readBackupManifest, type ListedFile } from '../../postgres/backup-manifest-reader.ts'
import { crc32c } from '../../postgres/crc32c.ts'
import { forEachConcurrent } from '../../stream/for-each-concurrent.ts'
import type { Finding } from './check-list.ts'

const READ_BYTES = 1024 * 1024
const FILES_AT_ONCE = 4
/** What a restore adds beside what the manifest lists, as `pg_verifybackup` has it. */
const UNLISTED = new Set(['backup_manifest', 'postgresql.auto.conf', 'recovery.signal', 'standby.signal'])

export interface LookOptions {
  readonly directory: string
  readonly signal: AbortSignal
  readonly onBytes?: (bytesDone: number) => void
}

/**
 * Reads every file of a restored directory that was not started yet, and compares size and CRC-32C with its `backup_manifest`; no file may
 * be missing and none may be there that is not listed. The only one that both leave out is `postgresql.auto.conf`, to which a restore appends.
 */
export async function checkFiles(options: LookOptions): Promise<Finding> {
  const { directory, signal } = options
  let wrong = 0
  let example = ''
  const note = (problem: string | undefined) => {
    if (problem === undefined) return
    wrong += 1
    if (example === '' || problem < example) example = problem
  }
  let files = 0
  let bytes = 0
  try {
    const listed = readBackupManifest(join(directory, 'backup_manifest'))
    await forEachConcurrent(listed, { limit: FILES_AT_ONCE, signal }, async (file) => {
      files += 1
      note(await compareFile(directory, file, signal))
      bytes += file.sizeBytes
      options.onBytes?.(bytes)
    })
  } catch (error) {
    if (error instanceof Failure && error.code === 'NOT_VERIFIED') note(error.message)
    else throw error
  }
  const there = await countFiles(directory, signal)
  if (wrong === 0 && there !== files) note(`${there} files are there, ${files} are listed`)
  if (wrong > 0) return { verdict: 'failed', found: `${wrong} of ${files} files wrong: ${example}` }
  return { verdict: 'verified', found: `${files} files, all as they were when they were backed up` }
}

/** What is wrong with a file; undefined when nothing is. */
async function compareFile(directory: string, file: ListedFile, signal: AbortSignal): Promise<string | undefined> {
  const shown = file.path.toString()
  const path =
    typeof file.path === 'string' ? join(directory, file.path) : Buffer.concat([Buffer.from(directory + sep), file.path])
  let handle
  try {
    handle = await open(path, 'r')
  } catch (error) {
    const code = systemErrorCode(error)
    if (code === undefined) throw error
    return `"${shown}" cannot be read: ${code}`
  }
  try {
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, file.sizeBytes + 1))
    let crc = 0
    let sizeBytes = 0
    for (;;) {
      signal.throwIfAborted()
      const { bytesRead } = await handle.read(buffer, 0, buffer.length)
      if (bytesRead === 0) break
      crc = crc32c(buffer.subarray(0, bytesRead), crc)
      sizeBytes += bytesRead
    }
    if (sizeBytes !== file.sizeBytes) return `"${shown}" has ${sizeBytes} bytes, not ${file.sizeBytes}`
    return crc === file.crc32c ? undefined : `"${shown}" has another content (CRC-32C)`
  } finally {
    await handle.close()
  }
}

/** Regular files, through the links of tablespaces, without WAL. */
async function countFiles(directory: string, signal: AbortSignal): Promise<number> {
  let count = 0
  const waiting = [directory]
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    signal.throwIfAborted()
    const isTop = at === directory
    for (const entry of await readdir(at, { withFileTypes: true })) {
      if (isTop && (entry.name === 'pg_wal' || UNLISTED.has(entry.name))) continue
      if (entry.isFile()) count += 1
      else waiting.push(join(at, entry.name))
    }
  }
  return count
}
