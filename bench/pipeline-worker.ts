import { createCipheriv, hash, randomBytes } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { PAGE_BYTES, PAGE_WORDS, verifyPage } from '../src/postgres/page-checksum.ts'
import { zstdParams } from '../src/repository/blob.ts'
import { PageFingerprinter } from '../src/repository/page-fingerprint.ts'
import { FINGERPRINT_BYTES } from '../src/repository/region.ts'
import { ZstdCompressor } from '../src/stream/zstd.ts'
import { PIPELINE_CHUNK_BYTES, type PipelineWork, type SampleChunk } from './machine.ts'

// What a backup does with the bytes, and nothing else: no file, no order, no storage. The bytes are read before the clock runs.

const { chunks } = workerData as PipelineWork
const memory = new ArrayBuffer(chunks.length * PIPELINE_CHUNK_BYTES)
const bytes = Buffer.from(memory)
const words = new Uint32Array(memory)
for (const [index, chunk] of chunks.entries()) readChunk(chunk, index * PIPELINE_CHUNK_BYTES)

const key = randomBytes(32)
const compressor = new ZstdCompressor(zstdParams(1))
const fingerprinter = new PageFingerprinter(randomBytes(32))
const fingerprints = Buffer.alloc((PIPELINE_CHUNK_BYTES / PAGE_BYTES) * FINGERPRINT_BYTES)
const nonce = Buffer.alloc(12)

parentPort!.once('message', () => {
  let storedBytes = 0
  let corruptPages = 0
  for (const [index, chunk] of chunks.entries()) {
    const at = index * PIPELINE_CHUNK_BYTES
    const content = bytes.subarray(at, at + chunk.length)
    for (let page = 0; chunk.firstBlock !== undefined && page < chunk.length; page += PAGE_BYTES) {
      const verdict = verifyPage(words, ((at + page) / PAGE_BYTES) * PAGE_WORDS, chunk.firstBlock + page / PAGE_BYTES)
      if (verdict === 'corrupt') corruptPages += 1
    }
    fingerprinter.fingerprint(content, fingerprints)
    hash('sha256', content)
    const compressed = compressor.compress(content)
    nonce.writeUInt32LE(index)
    const cipher = createCipheriv('aes-256-gcm', key, nonce)
    storedBytes += cipher.update(compressed).length
    cipher.final()
    storedBytes += cipher.getAuthTag().length
  }
  parentPort!.postMessage({ storedBytes, corruptPages })
})
parentPort!.postMessage('ready')

function readChunk(chunk: SampleChunk, at: number): void {
  const file = openSync(chunk.path, 'r')
  try {
    readSync(file, bytes, at, chunk.length, chunk.offset)
  } finally {
    closeSync(file)
  }
}
