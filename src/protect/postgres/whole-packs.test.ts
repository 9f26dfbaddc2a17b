import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock } from '../../clock.ts'
import { initRepository } from '../../repository/repository.ts'
import { HEADER_BYTES } from '../../repository/sealed-object.ts'
import { Secret } from '../../secret.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { areWholePacksThere, writeWholePacks } from './whole-packs.ts'

/** More than one block of entries, and more than one frame of the sealed file. */
const PACKS = 50_000

async function writtenPacks(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'resus-packs-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const access = { storage: new MemoryStorage(), passphrase: new Secret('test'), system: 'test' }
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  const file = { path: join(directory, 'backup.packs'), backup: 'backup' }
  const packs = new Map(Array.from({ length: PACKS }, (_, at) => [randomBytes(16).toString('hex'), 32_000_000 + at]))
  await writeWholePacks(repository, file, packs)
  return { repository, file, packs }
}

test('a backup is whole while all its packs are there, beside whatever else', async (t) => {
  const { repository, file, packs } = await writtenPacks(t)
  assert.equal(await areWholePacksThere(repository, file, packs), true)
  packs.set(randomBytes(16).toString('hex'), 1)
  assert.equal(await areWholePacksThere(repository, file, packs), true)
})

test('a pack that has gone, or has another size, is noticed: the first and the last as well', async (t) => {
  const { repository, file, packs } = await writtenPacks(t)
  const names = [...packs.keys()]
  for (const pack of [names[0]!, names[4096]!, names.at(-1)!]) {
    const without = new Map(packs)
    without.delete(pack)
    assert.equal(await areWholePacksThere(repository, file, without), false)
    assert.equal(await areWholePacksThere(repository, file, new Map(packs).set(pack, packs.get(pack)! - 1)), false)
  }
})

test('what cannot be read says nothing: missing, cut off, damaged, of another backup', async (t) => {
  const { repository, file, packs } = await writtenPacks(t)
  assert.equal(await areWholePacksThere(repository, { ...file, path: `${file.path}.none` }, packs), false)
  assert.equal(await areWholePacksThere(repository, { ...file, backup: 'other' }, packs), false)
  const bytes = await readFile(file.path)
  await writeFile(file.path, '')
  assert.equal(await areWholePacksThere(repository, file, packs), false)
  for (let at = 0; at < HEADER_BYTES; at++) {
    const flipped = Buffer.from(bytes)
    flipped[at]! ^= 1
    await writeFile(file.path, flipped)
    assert.equal(await areWholePacksThere(repository, file, packs), false, `byte ${at} of the header`)
  }
  await writeFile(file.path, bytes.subarray(0, bytes.length - 1))
  assert.equal(await areWholePacksThere(repository, file, packs), false)
  bytes[bytes.length >> 1]! ^= 1
  await writeFile(file.path, bytes)
  assert.equal(await areWholePacksThere(repository, file, packs), false)
})
