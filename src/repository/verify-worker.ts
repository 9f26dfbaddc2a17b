import type { KeyObject } from 'node:crypto'
import { workerData } from 'node:worker_threads'
import { serveJobs } from '../stream/worker-thread.ts'
import { blobIdentity, openBlob, type BlobLocation } from './blob.ts'
import type { KeyRing } from './key-ring.ts'
import { packKey } from './layout.ts'
import { openPackHeader, packDirectory } from './pack.ts'
import { HEADER_BYTES } from './sealed-object.ts'

export interface VerifyPackJob {
  readonly pack: string
  /** The whole pack. */
  readonly bytes: Uint8Array<ArrayBuffer>
}

export interface PackVerdict {
  readonly blobs: number
  readonly problems: readonly string[]
}

const { ring } = workerData as { ring: KeyRing }

serveJobs<VerifyPackJob, PackVerdict>(({ pack, bytes }) => {
  const stored = Buffer.from(bytes.buffer)
  const key = openPackHeader(ring, pack, stored.subarray(0, HEADER_BYTES))
  const problems: string[] = []
  const locations = packDirectory(ring, pack, stored)
  for (const location of locations) {
    const problem = blobProblem({ key, location, stored, name: packKey(pack) })
    if (problem !== undefined) problems.push(problem)
  }
  return { blobs: locations.length, problems }
})

function blobProblem(blob: { key: KeyObject; location: BlobLocation; stored: Buffer; name: string }): string | undefined {
  const { key, location, stored, name } = blob
  try {
    const sealed = stored.subarray(location.offset, location.offset + location.storedBytes)
    const content = openBlob(key, location, sealed, name)
    if (blobIdentity(ring, location.kind, content).equals(location.identity)) return undefined
    return `the blob at ${location.offset} is not what its identity says`
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
