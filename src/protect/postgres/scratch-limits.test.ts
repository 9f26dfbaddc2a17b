import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { systemClock } from '../../clock.ts'
import type { Failure } from '../../errors.ts'
import { DiskLimit } from './scratch-limits.ts'

test('a copy that takes more of the disk than it may is told, once, and one that does not is left alone', async (t) => {
  const path = await mkdtemp(join(tmpdir(), 'resus-limit-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  await mkdir(join(path, 'data'))
  await writeFile(join(path, 'data/file'), Buffer.alloc(2 * 1024 ** 2, 1))
  const { signal } = new AbortController()
  const heard: Failure[] = []
  {
    await using limit = new DiskLimit({ path, bytesMax: 4 * 1024 ** 2, clock: systemClock, signal }, (failure) =>
      heard.push(failure),
    )
    assert.ok(limit)
    await systemClock.sleep(50)
  }
  assert.equal(heard.length, 0)
  await new Promise<void>((resolve) => {
    const limit = new DiskLimit({ path, bytesMax: 1024 ** 2, clock: systemClock, signal }, (failure) => {
      heard.push(failure)
      resolve()
    })
    t.after(() => limit[Symbol.asyncDispose]())
  })
  assert.deepEqual(
    heard.map(({ code }) => code),
    ['DISK_FULL'],
  )
})
