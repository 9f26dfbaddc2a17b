import assert from 'node:assert/strict'
import test from 'node:test'
import type { Clock } from '../clock.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { putManifest, type BackupManifest } from './backups.ts'
import { initRepository, type Repository } from './repository.ts'
import {
  backupFingerprint,
  judgeBackup,
  listVerdicts,
  newestProvenBackup,
  provenBackups,
  putVerdict,
  verdictExpiry,
  type Verdict,
} from './verdicts.ts'

const DAY_MS = 24 * 3600 * 1000
const NOON = Date.UTC(2026, 10, 21, 12)
const clock: Clock = { now: () => NOON, sleep: async () => undefined }
const { signal } = new AbortController()

function manifestOf(id: string, sequence: number, startLsn = 16n): BackupManifest {
  return {
    format: 1,
    id,
    component: 'db',
    kind: 'postgres',
    type: 'full',
    previous: null,
    sequence,
    startedAt: '2026-11-21T00:00:00.000Z',
    finishedAt: '2026-11-21T00:00:01.000Z',
    server: {
      version: '18.4',
      major: 18,
      systemIdentifier: '7345',
      catalogVersion: 1,
      controlVersion: 1800,
      segmentSize: 1024 * 1024,
      dataChecksums: true,
      dataDirectory: '/data',
      encoding: 'UTF8',
      libc: null,
      collationVersions: [],
      preloadLibraries: '',
      settings: {},
      commandLine: {},
      versions: null,
    },
    incarnation: 'i',
    branch: 'b',
    timeline: 1,
    startLsn,
    stopLsn: 32n,
    stopTime: '2026-11-21T00:00:01.000Z',
    backupLabel: 'label',
    tablespaceMap: '',
    tablespaces: [],
    inPlaceTablespaces: [],
    configuration: null,
    control: Buffer.from('control').toString('base64'),
    tree: { identity: Buffer.alloc(32, sequence), kind: 5 },
    defaults: { fileMode: 0o600, directoryMode: 0o700, uid: 1, gid: 1 },
    totals: {
      files: 1,
      bytes: 1,
      bytesRead: 1,
      bytesStored: 1,
      walBytesStored: 1,
      bytesReused: 0,
      pagesChecked: 0,
      corruptPages: 0,
    },
    corruptPages: [],
    passedOver: [],
  }
}

const OLD = manifestOf('20261119T000000Z-000000', 1)
const NEW = manifestOf('20261120T000000Z-000000', 2)

async function makeRepository(): Promise<{ repository: Repository; storage: MemoryStorage }> {
  const storage = new MemoryStorage()
  const access = { storage, passphrase: new Secret('x'), system: 'test' }
  const { repository } = await initRepository(access, { clock, kdfCost: 1024 })
  for (const manifest of [OLD, NEW]) await putManifest(repository, manifest, signal)
  return { repository, storage }
}

function verdictOn(manifest: BackupManifest, atMs: number, more: Partial<Verdict> = {}): Verdict {
  return {
    format: 1,
    backup: manifest.id,
    component: 'db',
    verdict: 'verified',
    by: 'restore',
    target: 'backup',
    reached: { timeline: 1, lsn: '0/20' },
    fingerprint: backupFingerprint(manifest),
    at: new Date(atMs).toISOString(),
    expires: verdictExpiry(atMs),
    seconds: 1.5,
    checks: [{ name: 'recovery', verdict: 'verified', expected: 'x', found: 'x', seconds: 1 }],
    software: { resus: '0.1.0', node: '24', postgres: '18.4' },
    ...more,
  }
}

async function standing(repository: Repository, manifest: BackupManifest, nowMs: number) {
  return judgeBackup(await listVerdicts(repository, 'db', manifest.id), manifest, nowMs)
}

test('verdicts come back as they were put, newest first', async () => {
  const { repository } = await makeRepository()
  const verdicts = [0, 2, 1].map((minutes) => verdictOn(NEW, NOON + minutes * 60_000))
  for (const verdict of verdicts) await putVerdict(repository, verdict)
  const listed = await listVerdicts(repository, 'db', NEW.id)
  assert.deepEqual(
    listed.map(({ verdict }) => verdict),
    [verdicts[1], verdicts[2], verdicts[0]],
  )
  assert.deepEqual(await listVerdicts(repository, 'db', OLD.id), [])
  assert.deepEqual(await listVerdicts(repository, 'another', NEW.id), [])
})

test('a verdict that a reader would refuse is not put', async () => {
  const { repository } = await makeRepository()
  await assert.rejects(putVerdict(repository, { ...verdictOn(NEW, NOON), at: 'yesterday' }))
  assert.deepEqual(await listVerdicts(repository, 'db', NEW.id), [])
})

test('a backup is green from its restore until the proof expires, and no longer', async () => {
  const { repository } = await makeRepository()
  assert.equal((await standing(repository, NEW, NOON)).verdict, 'not proven')
  await putVerdict(repository, verdictOn(NEW, NOON, { by: 'read', target: null, reached: null }))
  assert.equal((await standing(repository, NEW, NOON)).verdict, 'not proven')
  await putVerdict(repository, verdictOn(NEW, NOON + 1))
  assert.equal((await standing(repository, NEW, NOON + 1)).verdict, 'verified')
  assert.equal((await standing(repository, NEW, NOON + 7 * DAY_MS)).verdict, 'verified')
  const expired = await standing(repository, NEW, NOON + 1 + 7 * DAY_MS)
  assert.equal(expired.verdict, 'not proven')
  assert.match(expired.remarks.join(), /expired at 2026-11-28T12:00:00.001Z/)
})

test('what takes the green away: a later failure of any kind, a time in the future, another content', async (t) => {
  const after: Record<string, { put: Partial<Verdict>[]; wanted: string }> = {
    'a failed restore': { put: [{}, { verdict: 'failed' }], wanted: 'failed' },
    'a failed reading': { put: [{}, { verdict: 'failed', by: 'read' }], wanted: 'failed' },
    'a failed reading, and a good one': { put: [{}, { verdict: 'failed', by: 'read' }, { by: 'read' }], wanted: 'not proven' },
    'a good restore after a failed one': { put: [{ verdict: 'failed' }, {}], wanted: 'verified' },
    'a good reading': { put: [{}, { by: 'read' }], wanted: 'verified' },
    'a restore that proved nothing': { put: [{}, { verdict: 'not proven' }], wanted: 'not proven' },
    'a time in the future': { put: [{ at: new Date(NOON + DAY_MS).toISOString() }], wanted: 'not proven' },
    'another content': { put: [{ fingerprint: backupFingerprint(manifestOf(NEW.id, 2, 17n)) }], wanted: 'not proven' },
    'a manifest that did not open': { put: [{ fingerprint: null }], wanted: 'not proven' },
  }
  for (const [name, { put, wanted }] of Object.entries(after)) {
    await t.test(name, async () => {
      const { repository } = await makeRepository()
      for (const [index, more] of put.entries()) await putVerdict(repository, verdictOn(NEW, NOON + index, more))
      assert.equal((await standing(repository, NEW, NOON + 10)).verdict, wanted)
    })
  }
})

test('a damaged verdict is named, proves nothing, and takes the green from an earlier one only', async () => {
  const { repository, storage } = await makeRepository()
  await putVerdict(repository, verdictOn(NEW, NOON))
  const key = await putVerdict(repository, verdictOn(NEW, NOON + 60_000, { verdict: 'failed' }))
  const pieces: Uint8Array[] = []
  for await (const piece of storage.get(key)) pieces.push(Buffer.from(piece))
  const bytes = Buffer.concat(pieces)
  bytes[bytes.length - 1]! ^= 1
  await storage.delete(key)
  await storage.put(key, bytes)

  const found = await standing(repository, NEW, NOON + 120_000)
  assert.equal(found.verdict, 'not proven')
  assert.ok(
    found.remarks.some((remark) => remark.includes(key)),
    found.remarks.join(),
  )
  await putVerdict(repository, verdictOn(NEW, NOON + 90_000))
  assert.equal((await standing(repository, NEW, NOON + 120_000)).verdict, 'verified')
})

test('a verdict under the name of another backup is damage', async () => {
  const { repository, storage } = await makeRepository()
  const key = await putVerdict(repository, verdictOn(OLD, NOON))
  const copy = key.replace(OLD.id, NEW.id)
  await storage.put(copy, storage.get(key))
  const [stored] = await listVerdicts(repository, 'db', NEW.id)
  assert.equal(stored?.damaged?.code, 'OBJECT_DAMAGED')
  assert.equal((await standing(repository, NEW, NOON)).verdict, 'not proven')
})

test('the newest proven backup is one whose proof holds; without any, the newest that was ever proven', async () => {
  const { repository } = await makeRepository()
  assert.equal(await newestProvenBackup(repository, 'db', NOON), undefined)
  await putVerdict(repository, verdictOn(NEW, NOON))
  await putVerdict(repository, verdictOn(OLD, NOON + DAY_MS))
  const at = async (nowMs: number) => {
    const proven = await newestProvenBackup(repository, 'db', nowMs)
    return [proven?.backup, proven?.current]
  }
  assert.deepEqual(await at(NOON + DAY_MS), [NEW.id, true])
  assert.deepEqual(await at(NOON + 7 * DAY_MS + 1), [OLD.id, true])
  assert.deepEqual(await at(NOON + 30 * DAY_MS), [NEW.id, false])
  const all: string[] = []
  for await (const { backup } of provenBackups(repository, 'db', NOON + 30 * DAY_MS)) all.push(backup)
  assert.deepEqual(all, [NEW.id, OLD.id])
  await putVerdict(repository, verdictOn(NEW, NOON + 2 * DAY_MS, { verdict: 'failed' }))
  assert.deepEqual(await at(NOON + 2 * DAY_MS), [OLD.id, true])
})
