import assert from 'node:assert/strict'
import test from 'node:test'
import { backupId, timeName } from './layout.ts'

test('ids of backups sort by the millisecond that they began in', () => {
  const start = Date.UTC(2026, 10, 21, 2, 37, 0, 0)
  const times = [0, 1, 9, 10, 15, 16, 255, 256, 999, 1000, 60_000].map((ms) => start + ms)
  const ids = times.map(backupId)
  assert.deepEqual(ids.toSorted(), ids)
  for (const id of ids) assert.match(id, /^\d{8}T\d{6}Z-[0-9a-f]{6}$/)
  assert.equal(timeName(start), '20261121T023700Z')
})
