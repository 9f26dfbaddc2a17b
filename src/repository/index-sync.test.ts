import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { access, mkdtemp, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { systemClock } from '../clock.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { putIndex, syncIndex } from './index-sync.ts'
import { encodeIndexEntry } from './index-table.ts'
import { randomId } from './layout.ts'
import { initRepository } from './repository.ts'

const WEEK_MS = 7 * 24 * 3600 * 1000

test('tables that one process is about to open are left there by another that merges them', async (t) => {
  const stateDirectory = await mkdtemp(join(tmpdir(), 'resus-index-'))
  t.after(() => rm(stateDirectory, { recursive: true, force: true }))
  const storage = new MemoryStorage()
  const access_ = { storage, passphrase: new Secret('test'), system: 'test' }
  const { repository } = await initRepository(access_, { clock: systemClock, kdfCost: 1024 })
  const { signal } = new AbortController()
  const put = async () => {
    const location = {
      identity: randomBytes(32),
      kind: 'chunk' as const,
      pack: randomId(),
      offset: 32,
      storedBytes: 40,
      rawBytes: 24,
    }
    await putIndex(repository, [encodeIndexEntry(location)], signal)
  }
  for (let index = 0; index < 8; index++) await put()
  const first = await syncIndex({ repository, stateDirectory })
  const longAgo = new Date(Date.now() - WEEK_MS)
  for (const table of first.tables) await utimes(table, longAgo, longAgo)

  const chosen = await syncIndex({ repository, stateDirectory })
  await put()
  const merged = await syncIndex({ repository, stateDirectory })
  assert.equal(merged.tables.length, 1)
  for (const table of chosen.tables) await access(table)
})
