import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { open, rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { relative } from 'node:path'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { assert } from '../src/assert.ts'
import { relationFile } from '../src/postgres/relation-file.ts'
import { listFiles } from './cluster-files.ts'

// The machine's own limits, to compare a tool with.

export const PIPELINE_CHUNK_BYTES = 256 * 1024
const SAMPLE_BYTES_MAX = 1_000_000_000
const WRITE_BYTES = 1024 * 1024
const RELATION_SEGMENT_BLOCKS = 131_072

const execute = promisify(execFile)

export interface SampleChunk {
  readonly path: string
  readonly offset: number
  readonly length: number
  /** Number of its first block, when it has pages with checksums. */
  readonly firstBlock?: number
}

export interface PipelineWork {
  readonly chunks: readonly SampleChunk[]
}

/** Bytes of all files per second of the pipeline that a full backup is, on all cores, with everything in memory. */
export async function measurePipeline(dataDirectory: string): Promise<number> {
  const sample = sampleChunks(dataDirectory)
  const count = availableParallelism()
  const workers = Array.from({ length: count }, (_, number) => {
    const workerData: PipelineWork = { chunks: sample.filter((_chunk, index) => index % count === number) }
    return new Worker(new URL('./pipeline-worker.ts', import.meta.url), { workerData })
  })
  try {
    // Each says that it has read its bytes.
    await Promise.all(workers.map((worker) => once(worker, 'message')))
    const begun = performance.now()
    const answers = workers.map((worker) => once(worker, 'message') as Promise<[{ corruptPages: number }]>)
    for (const worker of workers) worker.postMessage('go')
    for (const [{ corruptPages }] of await Promise.all(answers)) assert(corruptPages === 0, 'the cluster has no corrupt page')
    const seconds = (performance.now() - begun) / 1000
    return sample.reduce((sum, chunk) => sum + chunk.length, 0) / seconds
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
}

/** Chunks of all files, evenly, so that the sample is like the whole. */
function sampleChunks(dataDirectory: string): SampleChunk[] {
  const files = listFiles(dataDirectory)
  const chunks = files.flatMap(({ path, sizeBytes }) => {
    const relation = relationFile(relative(dataDirectory, path))
    return Array.from({ length: Math.ceil(sizeBytes / PIPELINE_CHUNK_BYTES) }, (_, index): SampleChunk => {
      const offset = index * PIPELINE_CHUNK_BYTES
      const chunk = { path, offset, length: Math.min(PIPELINE_CHUNK_BYTES, sizeBytes - offset) }
      return relation === undefined ? chunk : { ...chunk, firstBlock: relation.segment * RELATION_SEGMENT_BLOCKS + offset / 8192 }
    })
  })
  const bytes = files.reduce((sum, file) => sum + file.sizeBytes, 0)
  const step = Math.ceil(bytes / SAMPLE_BYTES_MAX)
  return chunks.filter((_, index) => index % step === 0)
}

/** Seconds to write as many bytes in sequence and make them durable, and to read them back from the disk. */
export async function measureDisk(path: string, sizeBytes: number): Promise<{ writeSeconds: number; readSeconds: number }> {
  const block = Buffer.alloc(WRITE_BYTES)
  // Not zeros, which some disks do not write.
  for (let at = 0; at < block.length; at += 4) block.writeUInt32LE((Math.imul(at, 2654435761) >>> 0) % 0xffffffff, at)
  try {
    const writeSeconds = await writeInSequence(path, sizeBytes, block)
    const begun = performance.now()
    // Past the page cache: what we have just written is in it.
    await execute('dd', [`if=${path}`, 'of=/dev/null', 'bs=4M', 'iflag=direct'])
    return { writeSeconds, readSeconds: (performance.now() - begun) / 1000 }
  } finally {
    await rm(path, { force: true })
  }
}

async function writeInSequence(path: string, sizeBytes: number, block: Buffer): Promise<number> {
  const begun = performance.now()
  const file = await open(path, 'w')
  try {
    for (let done = 0; done < sizeBytes; done += block.length) await file.write(block)
    await file.sync()
  } finally {
    await file.close()
  }
  return (performance.now() - begun) / 1000
}

/** Nothing of what ran before is still being written. */
export async function settleDisk(): Promise<void> {
  await execute('sync', [])
}
