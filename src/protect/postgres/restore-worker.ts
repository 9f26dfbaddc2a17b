import { workerData } from 'node:worker_threads'
import type { KeyRing } from '../../repository/key-ring.ts'
import { serveJobs } from '../../stream/worker-thread.ts'
import { restoreUnit, type RestoreJob } from './restore-unit.ts'

/** CRC-32C of each unit's content, in order. */
export type RestoreJobResult = readonly number[]

const { ring } = workerData as { ring: KeyRing }

serveJobs<RestoreJob, RestoreJobResult>((job) => job.units.map((unit) => restoreUnit(ring, unit, job)))
