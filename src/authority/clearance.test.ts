import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test from 'node:test'
import { Failure } from '../errors.ts'
import { listAuthority, putAuthority } from '../repository/authority-objects.ts'
import { initRepository, type Repository } from '../repository/repository.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { anchorDecision } from './anchors.ts'
import { keepBreakGlass, newBreakGlass, spreadBreakGlass } from './break-glass.ts'
import { askFromHost, requireClearance, type Clearance, type Deed } from './clearance.ts'
import { keepConfiguration, newestConfiguration } from './configurations.ts'
import { digestOf, type Asked, type Decided } from './operation.ts'

const NOON = Date.UTC(2026, 10, 22, 12)
const HOUR_MS = 3_600_000
const DEED: Deed = {
  operation: 'restore',
  parameters: { to: '/restored', options: { targetLsn: '0/1' } },
  isNewPlace: true,
  run: 'me',
}

async function place({ people = true } = {}) {
  const clock = { nowMs: NOON, now: () => clock.nowMs, sleep: async () => undefined }
  const access = { storage: new MemoryStorage(), passphrase: new Secret('x'), system: 'osun' }
  const { repository } = await initRepository(access, { clock, kdfCost: 1024 })
  if (people) await putAuthority(repository, 'people/somebody/1', { format: 1 })
  const clear = async (clearance: Clearance, deed: Deed = DEED) => requireClearance(repository, deed, clearance, clock)
  return { repository, clock, clear }
}

async function decided(repository: Repository, more: Partial<Decided> = {}): Promise<string> {
  const asked: Asked = {
    id: randomUUID(),
    operation: 'restore',
    system: 'osun',
    component: null,
    parameters: { ...DEED.parameters, reason: 'a server is gone' },
    askedBy: { id: 'host:root@his-1', name: 'root@his-1' },
    askedAt: new Date(NOON).toISOString(),
    expiresAt: new Date(NOON + 4 * HOUR_MS).toISOString(),
  }
  const common = { ...asked, ...more }
  await anchorDecision([repository], {
    format: 1,
    decision: 'approve',
    decidedBy: { id: 'b', name: 'b' },
    decidedAt: new Date(NOON).toISOString(),
    factor: 'passkey',
    reason: null,
    ...common,
    digest: digestOf(common),
  })
  return asked.id
}

const refusedWith = (code: string, text?: RegExp) => (error: unknown) =>
  error instanceof Failure && error.code === code && (text === undefined || text.test(error.message))

test('without people nobody is asked; with the first of them a second one is', async () => {
  await (await place({ people: false })).clear({ kind: 'none' })
  await assert.rejects((await place()).clear({ kind: 'none' }), refusedWith('APPROVAL_NEEDED'))
})

test('an approval lets through what it is for, whoever comes again with the same run, and nothing else', async () => {
  const { repository, clock, clear } = await place()
  const id = await decided(repository)
  const others: Deed[] = [
    { ...DEED, parameters: { ...DEED.parameters, to: '/elsewhere' } },
    { ...DEED, parameters: { to: '/restored', options: {} } },
    { ...DEED, operation: 'expire' },
  ]
  for (const other of others) {
    await assert.rejects(clear({ kind: 'approval', id }, other), refusedWith('APPROVAL_INVALID', /something else/))
  }
  await clear({ kind: 'approval', id })
  await clear({ kind: 'approval', id })
  await assert.rejects(clear({ kind: 'approval', id }, { ...DEED, run: 'another' }), refusedWith('APPROVAL_INVALID', /was used/))
  clock.nowMs += 5 * HOUR_MS
  await clear({ kind: 'approval', id })
  // It was interrupted, and not for ever.
  clock.nowMs += 20 * HOUR_MS
  await assert.rejects(clear({ kind: 'approval', id }), refusedWith('APPROVAL_INVALID'))
})

test('what nobody has decided on, was refused, is too old or is only asked for lets nothing through', async () => {
  const { repository, clock, clear } = await place()
  await assert.rejects(clear({ kind: 'approval', id: randomUUID() }), refusedWith('APPROVAL_NEEDED'))
  const asked = await askFromHost(repository, DEED, { account: 'root', host: 'his-1', reason: 'gone' }, clock)
  await assert.rejects(clear({ kind: 'approval', id: asked.id }), refusedWith('APPROVAL_NEEDED'))
  const refused = await decided(repository, { decision: 'refuse' })
  await assert.rejects(clear({ kind: 'approval', id: refused }), refusedWith('APPROVAL_INVALID', /refused/))
  const id = await decided(repository)
  clock.nowMs += 4 * HOUR_MS
  await assert.rejects(clear({ kind: 'approval', id }), refusedWith('APPROVAL_INVALID', /expired/))
})

test('an approval of one repository is none in another', async () => {
  const [here, there] = [await place(), await place()]
  const id = await decided(here.repository)
  await assert.rejects(there.clear({ kind: 'approval', id }), refusedWith('APPROVAL_NEEDED'))
  for (const other of [{ system: 'another' }, { component: 'another-db' }]) {
    const moved = await decided(here.repository, other)
    await assert.rejects(
      here.clear({ kind: 'approval', id: moved }),
      refusedWith('APPROVAL_INVALID', /is for another|another-db/),
    )
  }
})

test('a declared emergency restores to new places for four hours, and over nothing', async () => {
  const { repository, clock, clear } = await place()
  const id = randomUUID()
  await assert.rejects(clear({ kind: 'emergency', id }), refusedWith('APPROVAL_INVALID'))
  await putAuthority(repository, `emergencies/${id}.declared`, {
    format: 1,
    id,
    at: new Date(NOON).toISOString(),
    until: new Date(NOON + 4 * HOUR_MS).toISOString(),
  })
  await clear({ kind: 'emergency', id })
  await assert.rejects(clear({ kind: 'emergency', id }, { ...DEED, isNewPlace: false }), refusedWith('APPROVAL_NEEDED'))
  clock.nowMs += 4 * HOUR_MS
  await assert.rejects(clear({ kind: 'emergency', id }), refusedWith('APPROVAL_INVALID', /ended/))
})

test('the sealed code works once, for four hours, however it is typed, and over nothing', async () => {
  const { repository, clock, clear } = await place()
  const made = newBreakGlass()
  assert.match(made.code, /^([A-HJKMNP-TV-Z2-9]{5}-){5}[A-HJKMNP-TV-Z2-9]{5}$/)
  const breakGlass = (code: string, deed?: Deed) => clear({ kind: 'break-glass', code }, deed)
  await assert.rejects(breakGlass(made.code), refusedWith('APPROVAL_INVALID'), 'it was not made good')
  await keepBreakGlass([repository], made, randomUUID(), clock)
  await assert.rejects(breakGlass(newBreakGlass().code), refusedWith('APPROVAL_INVALID'))
  await assert.rejects(breakGlass(made.code, { ...DEED, isNewPlace: false }), refusedWith('APPROVAL_NEEDED'))
  assert.deepEqual(
    (await listAuthority(repository, 'break-glass/')).filter((name) => name.endsWith('.used')),
    [],
  )
  await Promise.all([breakGlass(made.code), breakGlass(` ${made.code.toLowerCase().replaceAll('-', ' ')}\n`)])
  clock.nowMs += 4 * HOUR_MS
  await assert.rejects(breakGlass(made.code), refusedWith('APPROVAL_INVALID', /was used/))
  for (const name of await listAuthority(repository, '')) assert(!name.includes(made.code))
})

test('a code that opened one repository is used up in the others, and is good where it was not known yet', async () => {
  const [here, there] = [await place(), await place()]
  const made = newBreakGlass()
  await keepBreakGlass([here.repository], made, randomUUID(), here.clock)
  await assert.rejects(there.clear({ kind: 'break-glass', code: made.code }), refusedWith('APPROVAL_INVALID'))
  await spreadBreakGlass([here.repository, there.repository])
  await there.clear({ kind: 'break-glass', code: made.code })
  await spreadBreakGlass([here.repository, there.repository])
  here.clock.nowMs += 4 * HOUR_MS
  await assert.rejects(here.clear({ kind: 'break-glass', code: made.code }), refusedWith('APPROVAL_INVALID', /was used/))
})

test('the configuration in force is the newest that was kept, also by a clock that was behind', async () => {
  const { repository, clock } = await place()
  assert.equal(await newestConfiguration(repository), undefined)
  for (const [days, hours] of [
    [7, 0],
    [7, 1],
    [30, -5],
  ] as const) {
    clock.nowMs = NOON + hours * HOUR_MS
    await keepConfiguration(repository, { keep: { days } }, null, clock)
  }
  assert.deepEqual((await newestConfiguration(repository))?.document, { keep: { days: 30 } })
  assert.equal((await listAuthority(repository, 'configurations/')).length, 2)
})
