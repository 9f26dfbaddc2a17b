import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { systemClock } from '../../clock.ts'
import { initRepository } from '../../repository/repository.ts'
import { Secret } from '../../secret.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { FingerprintReader, writeFingerprints, type FingerprintRecord } from './fingerprints.ts'

const RECORDS = 40

async function writtenFingerprints(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'resus-fingerprints-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const access = { storage: new MemoryStorage(), passphrase: new Secret('test'), system: 'test' }
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  const file = { path: join(directory, 'backup'), backup: 'backup' }
  await writeFingerprints(repository, file, records())
  return { repository, file }
}

/** More than one frame of the sealed file: 40 records of 64 KiB. */
async function* records(): AsyncGenerator<FingerprintRecord> {
  for (let at = 0; at < RECORDS; at++) yield { path: pathOf(at), firstRegion: 0, states: [Buffer.alloc(65_536, at)] }
}

function pathOf(at: number): string {
  return `base/1/${String(at).padStart(3, '0')}`
}

async function found(reader: FingerprintReader): Promise<number> {
  let count = 0
  for (let at = 0; at < RECORDS; at++) count += (await reader.find(pathOf(at), 0)).length
  await reader.close()
  return count
}

test('fingerprints are found again, in the order of paths', async (t) => {
  const { repository, file } = await writtenFingerprints(t)
  assert.equal(await found(new FingerprintReader(repository, file)), RECORDS)
})

async function flipByte(path: string, at: number): Promise<void> {
  const bytes = await readFile(path)
  bytes[at]! ^= 1
  await writeFile(path, bytes)
}

const damages: Readonly<Record<string, (path: string) => Promise<void>>> = {
  'is empty, as a power cut leaves it': (path) => truncate(path, 0),
  'ends in the middle of a frame': async (path) => await truncate(path, (await readFile(path)).length >> 1),
  'has a flipped bit': async (path) => flipByte(path, (await readFile(path)).length >> 1),
  'says that it is of another version': (path) => flipByte(path, 4),
  'says that it was sealed with another key': (path) => flipByte(path, 8),
  'was taken away': (path) => rm(path),
}

for (const [how, damage] of Object.entries(damages)) {
  test(`a file of fingerprints that ${how} tells nothing more, and fails no backup`, async (t) => {
    const { repository, file } = await writtenFingerprints(t)
    await damage(file.path)
    const notices: string[] = []
    const count = await found(new FingerprintReader(repository, file, (text) => notices.push(text)))
    assert.ok(count < RECORDS, `${count} of ${RECORDS} records`)
    assert.equal(notices.length, 1)
    await assert.rejects(readFile(file.path), { code: 'ENOENT' })
  })
}
