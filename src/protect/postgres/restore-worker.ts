import { workerData } from 'node:worker_threads'
import type { KeyRing } from '../../repository/key-ring.ts'
import { releaseBuffer } from '../../stream/own-bytes.ts'
import { serveJobs } from '../../stream/worker-thread.ts'
import { keptChunks, type CompareJob } from './compare-unit.ts'
import { restoreUnit, type RestoredUnit, type RestoreJob } from './restore-unit.ts'

export type RestoreWorkerJob = RestoreJob | CompareJob
/** For each unit of the job, in order: what was restored, or which chunks are right already. */
export type RestoreWorkerResult = readonly RestoredUnit[] | readonly (readonly number[])[]

const { ring } = workerData as { ring: KeyRing }

serveJobs<RestoreWorkerJob, RestoreWorkerResult>((job) => {
  if (job.kind === 'compare') return job.units.map((unit) => keptChunks(ring, unit))
  const restored = job.units.map((unit) => restoreUnit(ring, unit, job))
  for (const range of job.ranges) releaseBuffer(range)
  return restored
})
