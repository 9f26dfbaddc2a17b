import { workerData } from 'node:worker_threads'
import type { KeyRing } from '../../repository/key-ring.ts'
import { releaseBuffer } from '../../stream/own-bytes.ts'
import { serveJobs } from '../../stream/worker-thread.ts'
import { restoreUnit, type RestoreJob } from './restore-unit.ts'

/** CRC-32C of each unit's content, in order. */
export type RestoreJobResult = readonly number[]

const { ring } = workerData as { ring: KeyRing }

serveJobs<RestoreJob, RestoreJobResult>((job) => {
  const crcs = job.units.map((unit) => restoreUnit(ring, unit, job))
  for (const range of job.ranges) releaseBuffer(range)
  return crcs
})
