import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseControlFile } from '../../postgres/control-file.ts'
import { PAGE_BYTES, PAGE_WORDS, verifyPage } from '../../postgres/page-checksum.ts'
import { relationFile } from '../../postgres/relation-file.ts'
import type { Finding } from './check-list.ts'
import { walkDataDirectory } from './data-directory.ts'
import type { LookOptions } from './file-check.ts'

const READ_PAGES = 128

/**
 * Judges every page of every permanent relation by its checksum, as `pg_checksums` does it: on a cluster that was stopped cleanly. Not proven
 * where the cluster has no checksums.
 */
export async function checkPages(options: LookOptions): Promise<Finding> {
  const { directory, signal } = options
  const control = parseControlFile(await readFile(join(directory, 'global/pg_control')))
  if (control.state !== 'shut down')
    return { verdict: 'failed', found: `the cluster was not stopped cleanly: it is ${control.state}` }
  if (control.dataChecksumVersion === 0) return { verdict: 'not proven', found: 'the cluster has no page checksums' }
  const buffer = new Uint8Array(READ_PAGES * PAGE_BYTES)
  let pages = 0
  let corrupt = 0
  let first = ''
  for (const entry of walkDataDirectory(directory)) {
    signal.throwIfAborted()
    const file = entry.kind === 'file' ? relationFile(entry.path) : undefined
    if (file === undefined) continue
    const judged = await checkFilePages(buffer, {
      path: entry.absolutePath,
      firstBlock: file.segment * control.relationSegmentBlocks,
      signal,
    })
    pages += judged.pages
    corrupt += judged.corrupt
    if (first === '' && judged.corrupt > 0) first = `"${entry.path}", block ${judged.firstCorrupt}`
    options.onBytes?.(pages * PAGE_BYTES)
  }
  if (corrupt > 0) return { verdict: 'failed', found: `${corrupt} of ${pages} pages corrupt: ${first}` }
  // A cluster without a page is none: the walk would have gone wrong.
  return pages > 0
    ? { verdict: 'verified', found: `${pages} pages, none corrupt` }
    : { verdict: 'failed', found: 'no page was found' }
}

interface JudgedFile {
  readonly pages: number
  readonly corrupt: number
  readonly firstCorrupt: number
}

async function checkFilePages(
  buffer: Uint8Array<ArrayBuffer>,
  { path, firstBlock, signal }: { path: string; firstBlock: number; signal: AbortSignal },
): Promise<JudgedFile> {
  const judged = { pages: 0, corrupt: 0, firstCorrupt: 0 }
  const file = await open(path, 'r')
  try {
    for (;;) {
      signal.throwIfAborted()
      const { bytesRead } = await file.read(buffer, 0, buffer.length, judged.pages * PAGE_BYTES)
      const corrupt = corruptPages(buffer, bytesRead, firstBlock + judged.pages)
      if (judged.corrupt === 0 && corrupt.length > 0) judged.firstCorrupt = corrupt[0]!
      judged.corrupt += corrupt.length
      judged.pages += Math.ceil(bytesRead / PAGE_BYTES)
      if (bytesRead < buffer.length) return judged
    }
  } finally {
    await file.close()
  }
}

/** Blocks that are corrupt; what is left of a page at the file's end is. */
function corruptPages(buffer: Uint8Array<ArrayBuffer>, bytes: number, firstBlock: number): number[] {
  const words = new Uint32Array(buffer.buffer)
  const corrupt: number[] = []
  for (let page = 0; page * PAGE_BYTES < bytes; page++) {
    const isWhole = (page + 1) * PAGE_BYTES <= bytes
    if (!isWhole || verifyPage(words, page * PAGE_WORDS, firstBlock + page) === 'corrupt') corrupt.push(firstBlock + page)
  }
  return corrupt
}
