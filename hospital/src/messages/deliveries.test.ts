import assert from 'node:assert/strict'
import { closeSync, existsSync, openSync } from 'node:fs'
import { appendFile, mkdtemp, open, readFile, rm, symlink, unlink, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { appointmentChange, patientChange } from '../../test/services/clinical-changes.ts'
import { facility, skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { record } from '../events/record.ts'
import { deliverBatch } from './deliver.ts'
import { DeliveryLog } from './deliveries.ts'
import { queueMessages } from './queue.ts'

const withoutFull = existsSync('/dev/full') ? false : 'this platform has no /dev/full'
const MESSAGE = { facility: 'FAC001', kind: 'sms', patient: null, recipient: '+234', body: 'x' } as const

async function temporaryHome(t: TestContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'hospital-deliveries-'))
  t.after(async () => rm(home, { recursive: true, force: true }))
  return home
}

async function openLog(t: TestContext, home: string): Promise<DeliveryLog> {
  const log = await DeliveryLog.open(home)
  t.after(async () => log[Symbol.asyncDispose]().catch(() => undefined))
  return log
}

const fileOf = (home: string): string => join(home, 'outbound', 'deliveries.ndjson')

/** The ids in the file, also of lines that do not count. */
async function idsIn(home: string): Promise<unknown[]> {
  const lines = (await readFile(fileOf(home), 'utf8')).split('\n').filter((line) => line !== '')
  return lines.map((line) => (JSON.parse(line) as { id?: unknown }).id).filter((id) => id !== undefined)
}

/** Puts a device under a descriptor that is in use: what is done with it next fails, in the kernel. */
function replaceDescriptor({ fd }: FileHandle, device: string): void {
  closeSync(fd)
  const others: number[] = []
  for (let got = openSync(device, 'r+'); got !== fd; got = openSync(device, 'r+')) {
    others.push(got)
    assert.ok(others.length < 1000)
  }
  for (const each of others) closeSync(each)
}

type Step = 'read' | 'appendFile'

/** The next time that a file is appended to (or read), its descriptor is replaced before or after that. */
async function breakNext(
  t: TestContext,
  step: Step,
  { when, device }: { when: 'before' | 'after'; device: string },
): Promise<void> {
  const any = await open('/dev/null')
  const prototype = Object.getPrototypeOf(any) as Record<Step, (this: FileHandle, ...given: unknown[]) => Promise<unknown>>
  await any.close()
  const original = prototype[step]
  const mocked = t.mock.method(prototype, step, async function (this: FileHandle, ...given: unknown[]): Promise<unknown> {
    mocked.mock.restore()
    if (when === 'before') replaceDescriptor(this, device)
    const result = await original.apply(this, given)
    if (when === 'after') replaceDescriptor(this, device)
    return result
  })
}

/** One message is due. */
async function withMessage(t: TestContext): Promise<TestHospital> {
  const hospital = await testHospital(t)
  await hospital.database.transaction(facility('FAC001'), async (tx) => {
    const patient = patientChange('FAC001')
    await record(tx, patient)
    const change = appointmentChange('FAC001', patient.stream.slice('Patient/'.length))
    const event = await record(tx, change)
    await queueMessages(tx, { ...change, ...event }, (change.payload as { resource: object }).resource)
  })
  return hospital
}

const FAILURES = [
  { what: 'is not synced', when: 'after', device: '/dev/null', error: /EINVAL/, lines: 2 },
  { what: 'does not fit on the disk', when: 'before', device: '/dev/full', error: /ENOSPC/, lines: 1 },
] as const

for (const { what, error, lines, ...broken } of FAILURES) {
  test(`a delivery that ${what} is none: it is tried again, by whatever process`, { skip: skip || withoutFull }, async (t) => {
    const { database, home, admin } = await withMessage(t)
    const sink = await openLog(t, home)
    await breakNext(t, 'appendFile', broken)
    assert.deepEqual(await deliverBatch({ database, sink, backOffMs: 0 }), { kind: 'done', messages: 1 })
    const [{ id, status, reason } = {}] = (
      await admin.query<{ id?: string; status?: string; reason?: string }>(
        "select m.id, m.status, payload ->> 'reason' as reason from messages m join events e on e.stream = 'Message/' || m.id and e.version = m.version",
      )
    ).rows
    assert.equal(status, 'queued')
    assert.match(reason ?? '', error)
    const other = await openLog(t, home)
    assert.deepEqual([await sink.has(id ?? ''), await other.has(id ?? '')], [false, false])

    await deliverBatch({ database, sink: other, backOffMs: 0 })
    const { rows } = await admin.query(
      "select type, payload -> 'recognised' as recognised from events where stream = $1 order by version",
      [`Message/${id}`],
    )
    assert.deepEqual(rows, [
      { type: 'MessageQueued', recognised: null },
      { type: 'MessageAttempted', recognised: null },
      { type: 'MessageDelivered', recognised: false },
    ])
    assert.deepEqual(
      await idsIn(home),
      Array.from({ length: lines }, () => id),
    )
    for (const log of [sink, other, await openLog(t, home)]) assert.equal(await log.has(id ?? ''), true)
  })
}

test('a delivery of a process that was killed before its sync counts once it is synced', async (t) => {
  const home = await temporaryHome(t)
  const log = await openLog(t, home)
  for (const id of ['a', 'b']) await appendFile(fileOf(home), `${JSON.stringify({ id })}\n`)
  await breakNext(t, 'read', { when: 'after', device: '/dev/null' })
  await assert.rejects(log.has('a'), { code: 'EINVAL' })
  assert.deepEqual([await log.has('a'), await log.has('b')], [false, true])
  await log.deliver({ id: 'a', ...MESSAGE })
  assert.deepEqual([await log.has('a'), await (await openLog(t, home)).has('a')], [true, true])
})

test('a log that cannot be made durable is not opened', { skip: withoutFull }, async (t) => {
  const home = await temporaryHome(t)
  await (await DeliveryLog.open(home))[Symbol.asyncDispose]()
  await unlink(fileOf(home))
  await symlink('/dev/full', fileOf(home))
  await assert.rejects(DeliveryLog.open(home), { code: 'EINVAL' })
})
