import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import type { Json } from '../../authority/canonical-json.ts'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { listEvidence, readEvidence, recordName } from '../../repository/evidence-objects.ts'
import { initRepository, type Repository } from '../../repository/repository.ts'
import { verifyRepository } from '../../repository/verify.ts'
import { Secret } from '../../secret.ts'
import { MemoryStorage } from '../../storage/memory-storage.ts'
import { readObject } from '../../storage/storage.ts'
import { openBundle } from './bundle.ts'
import { appendRecord, newestRecord, readEnvelope, readRecord } from './chain.ts'
import { bundleEvidence, publicKeys, repositoryRecords } from './collect.ts'
import { putDetails, readDetails } from './details.ts'
import { signStatement, type Envelope } from './envelope.ts'
import { beginEvidence, currentKey, rotateSigningKey } from './keys.ts'
import { parsed, type NewRecord } from './record.ts'
import { verifyEvidence, type EvidenceReport, type FoundRecord } from './verify-evidence.ts'

const NOON = Date.UTC(2026, 10, 22, 12)
const DAY_MS = 24 * 3_600_000
const SUBJECT = [{ name: 'his-db/20261122T031500Z-1f4a2c', digest: { sha256: 'ab'.repeat(32) } }]
const signal = new AbortController().signal

async function place(system = 'Osun HIS') {
  const storage = new MemoryStorage()
  let nowMs = NOON
  const clock: Clock = { now: () => nowMs, sleep: async () => undefined }
  const { repository } = await initRepository({ storage, passphrase: new Secret('x'), system }, { clock, kdfCost: 1024 })
  const pass = (ms: number) => {
    nowMs += ms
  }
  const certify = async (text: string) => await appendRecord({ repository, system, clock, signal }, word(text), SUBJECT)
  return { repository, storage, clock, pass, certify, system }
}

function word(text: string): NewRecord {
  const of = { sequence: 1, digest: 'cd'.repeat(32) }
  return { kind: 'certification', of, by: 'the manager', decision: 'accepted', text }
}

async function judged(
  repository: Repository,
  more: { records?: FoundRecord[]; heads?: Envelope[]; fingerprint?: string | undefined } = {},
): Promise<EvidenceReport> {
  const fingerprint = 'fingerprint' in more ? more.fingerprint : (await currentKey(repository))?.fingerprint
  const keys = [...(await publicKeys(repository)).values()]
  return await verifyEvidence({
    records: more.records ?? repositoryRecords(repository),
    keys,
    fingerprint,
    heads: more.heads ?? [],
  })
}

async function found(repository: Repository): Promise<FoundRecord[]> {
  const records: FoundRecord[] = []
  for await (const record of repositoryRecords(repository)) records.push(record)
  return records
}

function kinds(report: EvidenceReport): string[] {
  return report.problems.map(({ kind, sequence }) => `${kind} ${String(sequence)}`)
}

/** An envelope whose predicate was changed, signed again by a key or left with its old signature. */
function forged(envelope: Envelope, change: Record<string, Json>, key?: Parameters<typeof createPrivateKey>[0]): Envelope {
  const statement = parsed(envelope) as { predicate: Record<string, Json> }
  const changed = { ...statement, predicate: { ...statement.predicate, ...change } } as unknown as Json
  const made = signStatement(changed, key === undefined ? generateKeyPairSync('ed25519').privateKey : createPrivateKey(key))
  return key === undefined ? { ...made, signatures: envelope.signatures } : made
}

test('records are chained, and whole only by a fingerprint from outside', async () => {
  const { repository, certify } = await place()
  assert.equal(await newestRecord(repository), undefined)
  for (const text of ['one', 'two', 'three']) await certify(text)
  const [first, second] = [await readRecord(repository, 1), await readRecord(repository, 2)]
  assert.equal(first.predicate.previous, null)
  assert.equal(second.predicate.previous, first.digest)

  const whole = await judged(repository)
  assert.deepEqual([whole.verdict, whole.records, whole.problems], ['verified', 3, []])
  assert.equal((await judged(repository, { fingerprint: undefined })).verdict, 'not proven')
  const foreign = await judged(repository, { fingerprint: '0'.repeat(64) })
  assert.deepEqual([foreign.verdict, kinds(foreign)], ['failed', ['foreign key null']])
  await assert.rejects(readRecord(repository, 4), { code: 'EVIDENCE_UNKNOWN' })
})

test('of many that append at once each has a number of its own, and the first key alone signs', async () => {
  const { repository, certify } = await place()
  const made = await Promise.all(Array.from({ length: 8 }, async (_, index) => certify(`word ${index}`)))
  assert.deepEqual(
    made.map(({ sequence }) => sequence).toSorted((left, right) => left - right),
    [1, 2, 3, 4, 5, 6, 7, 8],
  )
  const report = await judged(repository)
  assert.deepEqual([report.verdict, report.signers.length], ['verified', 1])
})

test('a verifier finds what was changed, left out, moved, cut or signed by somebody else', async () => {
  const { repository, certify } = await place()
  for (const text of ['one', 'two', 'three', 'four']) await certify(text)
  const good = await found(repository)
  const [one, two, three, four] = good as [FoundRecord, FoundRecord, FoundRecord, FoundRecord]
  const envelope = three.envelope as Envelope

  const changed = [one, two, { sequence: 3, envelope: forged(envelope, { text: 'else' }) }, four]
  assert.deepEqual(kinds(await judged(repository, { records: changed })), ['changed 3', 'changed 4'])

  assert.deepEqual(kinds(await judged(repository, { records: [one, two, four] })), ['missing 3'])
  const moved = [one, { sequence: 2, envelope: three.envelope }, { sequence: 3, envelope: two.envelope }, four]
  assert.deepEqual(
    new Set(kinds(await judged(repository, { records: moved }))),
    new Set(['moved 2', 'changed 2', 'moved 3', 'changed 3', 'changed 4']),
  )

  // Everything is signed anew, with a key that the forger has put there as well.
  const forger = generateKeyPairSync('ed25519')
  const other = forger.privateKey.export({ format: 'pem', type: 'pkcs8' })
  const pem = forger.publicKey.export({ format: 'pem', type: 'spki' })
  const all = good.map(({ sequence, envelope: each }) => ({
    sequence,
    envelope: forged(each as Envelope, { text: 'else' }, other),
  }))
  const keys = [pem.toString(), ...(await publicKeys(repository)).values()]
  const fingerprint = (await currentKey(repository))!.fingerprint
  const anew = await verifyEvidence({ records: all.slice(0, 1), keys, fingerprint, heads: [] })
  assert.deepEqual([anew.verdict, kinds(anew)], ['failed', ['foreign key null']])
  const grafted = await verifyEvidence({ records: [one, two, three, all[3]!], keys, fingerprint, heads: [] })
  assert.deepEqual(kinds(grafted), ['foreign key 4'])
  // By a record that names the true key as the next one a forger would like to lead to it.
  const leading = forged(one.envelope as Envelope, { kind: 'key', publicKey: '', fingerprint }, other)
  const led = await verifyEvidence({ records: [{ sequence: 1, envelope: leading }], keys, fingerprint, heads: [] })
  assert.equal(led.verdict, 'failed')

  const damaged = [one, { sequence: 2, envelope: new Failure('OBJECT_DAMAGED', 'flipped') }, three, four]
  assert.deepEqual(kinds(await judged(repository, { records: damaged })), ['damaged 2'])
})

test('what is cut off at the end shows against a count that was noted before', async (t) => {
  const { repository, storage, clock, certify } = await place()
  const directory = join(await temporary(t), 'bundle')
  for (const text of ['one', 'two', 'three']) await certify(text)
  await bundleEvidence({ repository, directory, components: ['his-db'], clock, signal })
  const { head } = await openBundle(directory)
  await storage.delete(`evidence/${recordName(3)}`)
  assert.equal((await judged(repository)).verdict, 'verified')
  assert.deepEqual(kinds(await judged(repository, { heads: [head!] })), ['cut 3'])
  // Another third record takes the place of the one that was cut.
  await certify('another three')
  assert.deepEqual(kinds(await judged(repository, { heads: [head!] })), ['changed 3'])
})

test('what was cut off at the front is missing, and a key that is out of force signs no count', async (t) => {
  const { repository, system, clock, certify } = await place()
  const directory = join(await temporary(t), 'bundle')
  for (const text of ['one', 'two', 'three']) await certify(text)
  const all = await found(repository)
  assert.deepEqual(kinds(await judged(repository, { records: all.slice(1) })), ['missing 1'])
  assert.deepEqual(kinds(await judged(repository, { records: all.slice(2) })), ['missing 1'])

  await bundleEvidence({ repository, directory, components: ['his-db'], clock, signal })
  const before = (await openBundle(directory)).head!
  const old = before.signatures[0]!.keyid
  await rotateSigningKey({ repository, system, clock, signal })
  for (const text of ['five', 'six']) await certify(text)
  const fingerprint = (await currentKey(repository))!.fingerprint
  const privateKey = (await readEvidence(repository, `keys/${old}`)) as { privateKey: string }
  const stolen = { key: Buffer.from(privateKey.privateKey, 'base64'), format: 'der', type: 'pkcs8' } as const
  const five = (await found(repository)).slice(0, 5)
  const statement = parsed(before) as { predicate: { records: Json[] } }
  const records: Json[] = [...statement.predicate.records]
  for (const sequence of [4, 5]) {
    const { digest, predicate } = await readRecord(repository, sequence)
    records.push({ digest, at: predicate.madeAt })
  }
  const last = (await readRecord(repository, 5)).digest
  const cut = forged(before, { count: 5, last, records }, stolen)
  const keys = [...(await publicKeys(repository)).values()]
  const report = await verifyEvidence({ records: five, keys, fingerprint, bundleHead: cut, heads: [] })
  assert.deepEqual([report.verdict, kinds(report)], ['failed', ['foreign key null']])
  // As it was before the rotation it was right, and is.
  assert.equal((await judged(repository, { heads: [before] })).verdict, 'verified')
})

test('a new key is named by the one before it; whoever has either fingerprint follows', async () => {
  const { repository, system, clock, certify } = await place()
  await certify('one')
  const old = (await currentKey(repository))!.fingerprint
  const rotated = await rotateSigningKey({ repository, system, clock, signal })
  assert.equal(rotated.envelope.signatures[0]?.keyid, old)
  const after = await certify('three')
  const now = (await currentKey(repository))!.fingerprint
  assert.notEqual(now, old)
  assert.equal(after.envelope.signatures[0]?.keyid, now)
  for (const fingerprint of [old, now]) assert.equal((await judged(repository, { fingerprint })).verdict, 'verified')

  // The old key signs on, as a thief of it would.
  const privateKey = (await readEvidence(repository, `keys/${old}`)) as { privateKey: string }
  const stolen = { key: Buffer.from(privateKey.privateKey, 'base64'), format: 'der', type: 'pkcs8' } as const
  const fourth = forged(after.envelope, { sequence: 4, previous: after.digest }, stolen)
  const records = [...(await found(repository)), { sequence: 4, envelope: fourth }]
  assert.deepEqual(kinds(await judged(repository, { records })), ['foreign key 4'])
})

test('a chain that begins by naming its key is known by it from the first drill on', async () => {
  const { repository, system, clock, certify } = await place()
  const [one, other] = await Promise.all([
    beginEvidence({ repository, system, clock, signal }),
    beginEvidence({ repository, system, clock, signal }),
  ])
  assert.equal(one.fingerprint, other.fingerprint)
  await certify('two')
  assert.equal((await judged(repository, { fingerprint: one.fingerprint })).verdict, 'verified')
  assert.equal((await beginEvidence({ repository, system, clock, signal })).fingerprint, one.fingerprint)
})

test('whoever dies between key, details and record leaves no hole: what is left over signs nothing, and is named by nothing', async (t) => {
  const { repository, storage, clock, certify } = await place()
  const put = storage.put.bind(storage)
  const dying = async (prefix: string, work: () => Promise<unknown>) => {
    storage.put = async (key, source) => {
      if (key.startsWith(`evidence/${prefix}`)) throw new Failure('STORAGE_UNREACHABLE', 'the power is out')
      await put(key, source)
    }
    await assert.rejects(work(), { code: 'STORAGE_UNREACHABLE' })
    storage.put = put
  }
  await dying('keys/', async () => certify('one'))
  await dying('records/', async () => certify('one'))
  assert.equal((await listEvidence(repository, 'keys/')).length, 1)
  assert.equal(await newestRecord(repository), undefined)
  const first = await certify('one')
  await dying('records/', async () => certify('two'))
  await certify('two')
  const report = await judged(repository)
  assert.deepEqual([report.verdict, report.records, report.signers], ['verified', 2, [first.envelope.signatures[0]!.keyid]])

  // A bundle that was being made when the power went out stands in nobody's way, and is taken for none.
  const directory = join(await temporary(t), 'bundle')
  await mkdir(join(directory, '..', '.bundle.making', 'records'), { recursive: true })
  await writeFile(join(directory, '..', '.bundle.making', 'records', '0000000001.dsse.json'), 'half of it')
  await assert.rejects(openBundle(directory), { code: 'EVIDENCE_UNKNOWN' })
  await bundleEvidence({ repository, directory, components: ['his-db'], clock, signal })
  assert.deepEqual((await openBundle(directory)).sums, [])
  assert.deepEqual(await readdir(join(directory, '..')), ['bundle'])
})

test('nothing is added behind a record that nobody can read, nor without the key that has to sign', async () => {
  const { repository, storage, certify } = await place()
  await certify('one')
  const key = `evidence/${recordName(1)}`
  await flip(storage, key)
  await assert.rejects(certify('two'), { code: 'OBJECT_DAMAGED' })
  await flip(storage, key)
  const [name] = await listEvidence(repository, 'keys/')
  await storage.delete(`evidence/${name}`)
  await assert.rejects(certify('two'), { code: 'OBJECT_MISSING' })
  assert.equal((await newestRecord(repository))?.sequence, 1)
})

test('a bundle is checked offline, by Resus and by openssl, and any change in it is found', async (t) => {
  const { repository, clock, pass, certify, system } = await place()
  const directory = join(await temporary(t), 'bundle')
  await certify('one')
  pass(DAY_MS)
  await rotateSigningKey({ repository, system, clock, signal })
  await certify('<script>alert(1)</script>')
  const written = await bundleEvidence({ repository, directory, components: ['his-db'], clock, signal })
  assert.equal(written.records, 3)
  const fingerprint = (await currentKey(repository))!.fingerprint
  const verify = async () => {
    const bundle = await openBundle(directory)
    const question = { records: bundle.records(), keys: bundle.keys, bundleHead: bundle.head, fingerprint, heads: [] }
    return { sums: bundle.sums, ...(await verifyEvidence(question)) }
  }
  assert.deepEqual(await verify().then(({ verdict, sums }) => ({ verdict, sums })), { verdict: 'verified', sums: [] })
  const page = await readFile(join(directory, 'records/0000000003.html'), 'utf8')
  assert.ok(!page.includes('<script>'))
  assert.match(page, /&lt;script&gt;/)

  // As its README says.
  const readme = await readFile(join(directory, 'README.md'), 'utf8')
  const commands = [...readme.matchAll(/(?:^ {4}.*\n)+/gm)].map(([block]) => block.replaceAll(/^ {4}/gm, '')).slice(0, 5)
  assert.equal(commands.length, 5)
  const shell = (text: string) =>
    execFileSync('bash', ['-euc', text.replace('FINGERPRINT=...', `FINGERPRINT=${fingerprint}`)], {
      cwd: directory,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  const jq = hasJq()
  if (!jq) t.diagnostic('there is no jq here: steps 3 and 4 of the README were not tried')
  for (const command of jq ? commands : commands.slice(0, 2)) assert.doesNotMatch(shell(command), /NOT /)
  const pem = (await readdir(join(directory, 'keys'))).toSorted()
  assert.ok(pem.includes(`${fingerprint}.pem`))

  // What is there for reading, and its sum: nobody would see it in the envelope.
  const copy = join(directory, 'records/0000000001.json')
  const plain = await readFile(copy, 'utf8')
  await writeFile(copy, plain.replace('"accepted"', '"rejected"'))
  assert.ok((await verify()).sums.includes('records/0000000001.json is not what records/0000000001.dsse.json has'))
  if (jq) assert.match(shell(commands[2]!), /NOT WHAT WAS SIGNED/)
  await writeFile(copy, plain)

  // Any byte of what was signed.
  const path = join(directory, 'records/0000000001.dsse.json')
  const text = await readFile(path, 'utf8')
  const at = text.indexOf('"payload": "') + 200
  await writeFile(path, text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1))
  const broken = await verify()
  assert.equal(broken.verdict, 'failed')
  assert.equal(broken.sums[0], 'records/0000000001.dsse.json is not what SHA256SUMS says')
  await writeFile(path, text)
  await rm(join(directory, 'records/0000000002.dsse.json'))
  assert.deepEqual(kinds(await verify()), ['missing 2'])
})

test('a bundle of a part shows what was left out of it', async (t) => {
  const { repository, clock, pass, certify } = await place()
  const directory = join(await temporary(t), 'bundle')
  await certify('one')
  pass(DAY_MS)
  for (const text of ['two', 'three']) await certify(text)
  pass(DAY_MS)
  await certify('four')
  const asked = {
    repository,
    directory,
    components: ['his-db'],
    clock,
    signal,
    fromMs: NOON + DAY_MS,
    untilMs: NOON + 2 * DAY_MS,
  }
  assert.equal((await bundleEvidence(asked)).records, 2)
  const bundle = await openBundle(directory)
  const fingerprint = (await currentKey(repository))!.fingerprint
  const question = { keys: bundle.keys, bundleHead: bundle.head, fingerprint, heads: [] }
  const report = await verifyEvidence({ ...question, records: bundle.records() })
  assert.deepEqual([report.verdict, report.first, report.last], ['verified', 2, 3])
  const records: FoundRecord[] = []
  for await (const record of bundle.records()) records.push(record)
  const without = async (sequence: number) =>
    kinds(await verifyEvidence({ ...question, records: records.filter((each) => each.sequence !== sequence) }))
  assert.deepEqual(await without(2), ['missing 2'])
  assert.deepEqual(await without(3), ['cut 3'])
  await assert.rejects(bundleEvidence({ ...asked, directory: `${directory}2`, fromMs: NOON + 9 * DAY_MS, untilMs: undefined }), {
    code: 'EVIDENCE_UNKNOWN',
  })
  await assert.rejects(bundleEvidence(asked), { code: 'DIRECTORY_NOT_EMPTY' })
  assert.deepEqual(
    (await readdir(join(directory, '..'))).filter((name) => name.includes('making')),
    [],
  )
})

test('details are held to what the record has signed', async () => {
  const { repository, storage } = await place()
  const named = await putDetails(repository, [{ name: 'sql: orphans', said: 'three', findings: [1, 2, 3] }])
  assert.ok(named !== null)
  assert.deepEqual((await readDetails(repository, named)).checks[0]?.findings, [1, 2, 3])
  await assert.rejects(readDetails(repository, { ...named, digest: '0'.repeat(32) }), { code: 'OBJECT_DAMAGED' })
  await storage.delete(`evidence/details/${named.id}`)
  await assert.rejects(readDetails(repository, named), { code: 'EVIDENCE_UNKNOWN' })
  assert.equal(await putDetails(repository, []), null)
})

test('reading a repository back reads its evidence', async (t) => {
  const { repository, storage, certify } = await place()
  await certify('one')
  const stateDirectory = await temporary(t)
  const read = async () => await verifyRepository({ repository, stateDirectory, scope: { kind: 'all' }, signal })
  assert.equal((await read()).verdict, 'verified')
  await flip(storage, `evidence/${recordName(1)}`)
  assert.deepEqual(
    (await read()).problems.map(({ object }) => object),
    [`evidence/${recordName(1)}`],
  )
  const envelope: unknown = await readEnvelope(repository, 1).catch((error: unknown) => error)
  assert.ok(envelope instanceof Failure)
})

async function temporary(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-evidence-'))
  t.after(async () => rm(directory, { recursive: true, force: true }))
  return directory
}

/** Flips a bit of an object; a second time, back. */
async function flip(storage: MemoryStorage, key: string): Promise<void> {
  const bytes = await readObject(storage, key)
  bytes[60] = bytes[60]! ^ 1
  await storage.delete(key)
  await storage.put(key, bytes)
}

function hasJq(): boolean {
  try {
    execFileSync('jq', ['--version'])
    return true
  } catch {
    return false
  }
}
