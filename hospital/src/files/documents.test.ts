import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { appendFile, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { documentOf, make, PATIENT } from '../../test/services/fhir-samples.ts'
import { skip } from '../../test/services/hospital-database.ts'
import { at, testService, type Ask } from '../../test/services/hospital-service.ts'

const TEXT = Buffer.from('Haemoglobin 12.5 g/dL')

function hashOf(algorithm: string, content: Buffer, encoding: 'hex' | 'base64'): string {
  return createHash(algorithm).update(content).digest(encoding)
}

async function filesIn(home: string): Promise<string[]> {
  const names = await readdir(home, { recursive: true, withFileTypes: true })
  return names.filter((each) => each.isFile()).map((each) => each.name)
}

async function upload(ask: Ask, content: Buffer, type = 'text/plain') {
  return await ask('POST /documents', { body: content, headers: { 'content-type': type } })
}

test('a document that comes within its DocumentReference becomes a file, and is given back as it was', { skip }, async (t) => {
  const { askAs, home, admin } = await testService(t)
  const ask = askAs('FAC001')
  const patient = await make(ask, PATIENT)
  const made = await make(ask, documentOf(patient.id, { data: TEXT.toString('base64') }))
  const sha256 = hashOf('sha256', TEXT, 'hex')
  const attachment = at(made, 'content.0.attachment')
  assert.deepEqual(attachment, {
    contentType: 'text/plain',
    extension: [{ url: 'https://his.osun.example/sha256', valueString: sha256 }],
    url: `/documents/${sha256}`,
    size: TEXT.length,
    hash: hashOf('sha1', TEXT, 'base64'),
  })
  assert.deepEqual(await readFile(join(home, 'documents', sha256.slice(0, 2), sha256)), TEXT)
  assert.deepEqual(await filesIn(home), [sha256])
  const { rows } = await admin.query(
    "select payload -> 'file' as file, payload::text ~ 'data' as has_data from events where type = 'DocumentFiled'",
  )
  assert.deepEqual(rows, [{ file: { sha256, sizeBytes: TEXT.length }, has_data: false }])
  const read = await ask(`GET /documents/${sha256}`)
  assert.deepEqual([read.status, read.raw, read.headers['content-type']], [200, TEXT, 'text/plain'])
  const superseded = await ask(`PUT /fhir/DocumentReference/${made.id}`, { body: { ...made, status: 'superseded' } })
  assert.equal(superseded.status, 200, JSON.stringify(superseded.body))
  assert.deepEqual(at(superseded.body, 'content.0.attachment'), attachment)
})

test('a document may be sent first and named then, by the facility that sent it alone', { skip }, async (t) => {
  const { askAs } = await testService(t)
  const [own, other] = [askAs('FAC001'), askAs('FAC002')]
  const sent = await upload(own, TEXT)
  assert.equal(sent.status, 201)
  const url = String(sent.body['url'])
  // Nobody sees a file that no document names.
  assert.equal((await own(`GET ${url}`)).status, 404)
  const [here, there] = [await make(own, PATIENT), await make(other, PATIENT)]
  const claimed = await other('POST /fhir/DocumentReference', { body: documentOf(there.id, { url }) })
  const unknown = await other('POST /fhir/DocumentReference', {
    body: documentOf(there.id, { url: `/documents/${'0'.repeat(64)}` }),
  })
  assert.deepEqual([claimed.status, claimed.body], [422, unknown.body])
  await make(own, documentOf(here.id, { url }))
  assert.deepEqual((await own(`GET ${url}`)).raw, TEXT)
  assert.equal((await other(`GET ${url}`)).status, 404)
  // Who has the content has it, and then the file is one and the same.
  await upload(other, TEXT)
  await make(other, documentOf(there.id, { url }))
  assert.deepEqual((await other(`GET ${url}`)).raw, TEXT)
  assert.deepEqual((await askAs('GROUP')(`GET ${url}`)).raw, TEXT)
  assert.equal((await upload(askAs('GROUP'), TEXT)).status, 403)
})

test('the same document sent by many at once is one file', { skip }, async (t) => {
  const { askAs, home } = await testService(t)
  const content = Buffer.alloc(300_000, 'x')
  const answers = await Promise.all(
    Array.from({ length: 8 }, async (_each, index) => upload(askAs(`FAC00${(index % 3) + 1}`), content)),
  )
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([201]))
  assert.deepEqual(await filesIn(home), [hashOf('sha256', content, 'hex')])
})

test('a file that is missing, damaged or cut off is an error, never a document', { skip }, async (t) => {
  const { askAs, home } = await testService(t)
  const ask = askAs('FAC001')
  const patient = await make(ask, PATIENT)
  for (const size of [1000, 400_000]) {
    const content = Buffer.alloc(size, String(size))
    const sent = await upload(ask, content)
    const url = String(sent.body['url'])
    await make(ask, documentOf(patient.id, { url }))
    const path = join(home, 'documents', url.slice(11, 13), url.slice(11))
    const flipped = Buffer.from(content)
    flipped[size - 1]! ^= 1
    await writeFile(path, flipped)
    const damaged = await ask(`GET ${url}`).catch((error: unknown) => error as Error)
    // The long one has begun: its connection breaks.
    if (size === 1000) assert.deepEqual([at(damaged, 'status'), at(damaged, 'body.code')], [500, 'DAMAGED'])
    else assert.ok(damaged instanceof Error || (damaged.raw.length < size && damaged.raw.length > 0))
    await appendFile(path, 'x')
    assert.equal((await ask(`GET ${url}`)).status, 500)
    await rm(path)
    assert.match(String((await ask(`GET ${url}`)).body['detail']), /is missing/)
    // Sent again, it is whole again.
    await upload(ask, content)
    assert.deepEqual((await ask(`GET ${url}`)).raw, content)
    await writeFile(path, flipped)
    await upload(ask, content)
    assert.deepEqual((await ask(`GET ${url}`)).raw, content)
  }
})

test('a document that is not what its record says is refused, and nothing names it', { skip }, async (t) => {
  const { askAs, admin } = await testService(t)
  const ask = askAs('FAC001')
  const patient = await make(ask, PATIENT)
  const data = TEXT.toString('base64')
  const wrong: object[] = [
    { data, size: 7 },
    { data, hash: hashOf('sha1', Buffer.from('x'), 'base64') },
    { data, url: `/documents/${'0'.repeat(64)}` },
    { data: 'no base64!' },
    { title: 'nothing' },
    { url: 'https://example.org/report.pdf' },
    { url: '/documents/../../etc/passwd' },
  ]
  for (const attachment of wrong) {
    const answer = await ask('POST /fhir/DocumentReference', { body: documentOf(patient.id, attachment) })
    assert.equal(answer.status, 422, JSON.stringify(attachment))
  }
  assert.equal((await admin.query('select from document_references')).rowCount, 0)
  assert.equal((await ask('GET /documents/..%2F..%2Fetc%2Fpasswd')).status, 404)
  assert.equal((await ask('POST /documents', { body: Buffer.alloc(0), headers: { 'content-type': 'text/plain' } })).status, 400)
})
