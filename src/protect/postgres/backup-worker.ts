import { workerData } from 'node:worker_threads'
import { BlobWriter, type BlobWriterOptions, type PackOutput } from '../../repository/blob-writer.ts'
import { PageFingerprinter } from '../../repository/page-fingerprint.ts'
import { serveJobs } from '../../stream/worker-thread.ts'
import { backupUnit, type BackupUnit, type UnitResult } from './backup-unit.ts'

/** What a thread is asked to do: back up some units, or end its open pack. */
export type BackupJob = { readonly kind: 'units'; readonly units: readonly BackupUnit[] } | { readonly kind: 'finish' }

export interface BackupJobResult {
  readonly results: readonly UnitResult[]
  readonly outputs: readonly PackOutput[]
  /** Raw bytes that were not stored because the repository had them, so far, by this thread. */
  readonly reusedBytes: number
}

const options = workerData as BlobWriterOptions
const writer = new BlobWriter(options)
const tools = { writer, fingerprinter: new PageFingerprinter(options.ring.pageKey) }

serveJobs<BackupJob, BackupJobResult>(
  (job) => {
    const results = job.kind === 'units' ? job.units.map((unit) => backupUnit(unit, tools)) : []
    if (job.kind === 'finish') writer.closePack()
    return { results, outputs: writer.drain(), reusedBytes: writer.reusedBytes }
  },
  ({ results, outputs }) => {
    const states = results.flatMap((result) => (result.kind === 'region' ? [result.state.buffer] : []))
    return [...states, ...outputs.map((output) => output.bytes.buffer)]
  },
)
