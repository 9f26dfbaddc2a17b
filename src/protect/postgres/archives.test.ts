import assert from 'node:assert/strict'
import test from 'node:test'
import {
  lsnRange,
  openSpool,
  SEGMENT,
  spooledWal,
  spoolFiles,
  spoolWal,
  START,
  storedWal,
} from '../../../test/services/spooled-wal.ts'
import { systemClock } from '../../clock.ts'
import { Secret } from '../../secret.ts'
import { TimedStorage } from '../../storage/timed-storage.ts'
import { Archives } from './archives.ts'
import { streamSchema } from './component.ts'
import type { StreamEvent } from './stream-event.ts'

const STALLS_AFTER_MAX = 3

test('a timeline that is complete leaves an earlier stretch of it in the spool until that is stored, too', async (t) => {
  const all = await spooledWal(t)
  const { branch } = all
  const repository = { ...all.repository, storage: new TimedStorage(all.repository.storage, 50) }
  const spool = await openSpool(all)
  const secondStored = Promise.withResolvers<void>()
  const firstStored = Promise.withResolvers<void>()
  let stallsAfter = 0
  let isSecondStored = false
  // The first stretch's put hangs, and goes on hanging for a while when the second stretch is stored.
  const stretch2 = START + BigInt(2 * SEGMENT)
  all.faults = ({ operation, key }) => {
    if (operation !== 'put' || !key.includes('000000010000000000000010')) return undefined
    if (isSecondStored) stallsAfter += 1
    return stallsAfter > STALLS_AFTER_MAX ? undefined : 'stall'
  }
  const onEvent = (event: StreamEvent) => {
    if (event.kind !== 'stored') return
    isSecondStored ||= event.from >= stretch2
    if (event.from >= stretch2) secondStored.resolve()
    else firstStored.resolve()
  }
  const component = { name: 'db', stream: streamSchema.parse({}) } as const
  const archives = new Archives({
    repository,
    component: { ...component, connection: new Secret('') },
    clock: systemClock,
    spool,
    source: 'stream',
    onEvent,
  })
  t.after(() => archives.abort())
  const failed = new Promise<never>((_, reject) =>
    archives.failed.addEventListener('abort', () => reject(archives.failed.reason)),
  )

  await spoolWal(all, spool, { from: 0, to: 500_000 })
  archives.begin({ branch, startLsn: START, knownTo: START, archivedTo: START, looksBack: false })
  archives.setDurable(START + 500_000n)
  archives.flush()
  // Behind a gap.
  await spoolWal(all, spool, { from: 2 * SEGMENT, to: 2 * SEGMENT + 100_000 })
  archives.begin({ branch, startLsn: stretch2, knownTo: stretch2, archivedTo: stretch2, looksBack: false })
  archives.setDurable(stretch2 + 100_000n)
  archives.end('complete')
  await Promise.race([secondStored.promise, failed])
  await Promise.race([firstStored.promise, failed])
  await archives.finish()
  assert.deepEqual(await storedWal(all, branch), [lsnRange(0, 500_000), lsnRange(2 * SEGMENT, 2 * SEGMENT + 100_000)])
  assert.deepEqual(await spoolFiles(all), [])
})
