import { lstatSync, readSync, openSync, closeSync } from 'node:fs'
import { hash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { constants, zstdCompressSync } from 'node:zlib'
import { PAGE_BYTES } from '../src/postgres/page-checksum.ts'
import { walkDataDirectory } from '../src/protect/postgres/data-directory.ts'

const READ_BYTES = 4 * 1024 * 1024

/** A file that a backup copies. */
export interface ClusterFile {
  readonly path: string
  readonly sizeBytes: number
}

/** The files of a data directory that a backup copies. */
export function listFiles(dataDirectory: string): ClusterFile[] {
  const files: ClusterFile[] = []
  for (const entry of walkDataDirectory(dataDirectory)) {
    if (entry.kind === 'file') files.push({ path: entry.absolutePath, sizeBytes: lstatSync(entry.absolutePath).size })
  }
  return files
}

/** A hash of every page, by file. */
export type PageHashes = ReadonlyMap<string, readonly string[]>

export function hashPages(dataDirectory: string): PageHashes {
  const hashes = new Map<string, string[]>()
  for (const file of listFiles(dataDirectory)) {
    const ofFile: string[] = []
    for (const page of pagesOf(file.path)) ofFile.push(hash('sha256', page, 'base64'))
    hashes.set(file.path, ofFile)
  }
  return hashes
}

export interface ChangedPages {
  readonly pages: number
  readonly ofPages: number
  /** All of them compressed as one, zstd level 1: what an incremental backup cannot do much better than. */
  readonly compressedBytes: number
}

export function changedPages(dataDirectory: string, before: PageHashes): ChangedPages {
  const changed: Buffer[] = []
  let ofPages = 0
  for (const file of listFiles(dataDirectory)) {
    const known = before.get(file.path) ?? []
    let page = 0
    for (const content of pagesOf(file.path)) {
      if (hash('sha256', content, 'base64') !== known[page]) changed.push(Buffer.from(content))
      page += 1
    }
    ofPages += page
  }
  const params = { [constants.ZSTD_c_compressionLevel]: 1 }
  const compressedBytes = zstdCompressSync(Buffer.concat(changed), { params }).length
  return { pages: changed.length, ofPages, compressedBytes }
}

/** Each page is valid until the next is asked for. */
function* pagesOf(path: string): Generator<Buffer> {
  const buffer = Buffer.alloc(READ_BYTES)
  const file = openSync(path, 'r')
  try {
    for (let offset = 0; ; offset += READ_BYTES) {
      const length = readSync(file, buffer, 0, READ_BYTES, offset)
      for (let at = 0; at < length; at += PAGE_BYTES) yield buffer.subarray(at, Math.min(length, at + PAGE_BYTES))
      if (length < READ_BYTES) return
    }
  } finally {
    closeSync(file)
  }
}

/** The bytes of all files in a directory and below it. */
export async function treeBytes(directory: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size
  }
  return bytes
}
