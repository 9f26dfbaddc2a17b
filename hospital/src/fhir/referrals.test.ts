import assert from 'node:assert/strict'
import test from 'node:test'
import { copyOf } from '../../test/services/copied-database.ts'
import { make, observation, PATIENT, referral } from '../../test/services/fhir-samples.ts'
import { facility, skip } from '../../test/services/hospital-database.ts'
import { at, resourcesOf, testService, type Ask, type Found } from '../../test/services/hospital-service.ts'

const MRN = 'https://his.osun.example/mrn/'

async function put(ask: Ask, resource: Found, more: object): Promise<{ status: number; body: Found }> {
  return await ask(`PUT /fhir/${String(resource['resourceType'])}/${String(resource['id'])}`, { body: { ...resource, ...more } })
}

test("a referral is seen by both facilities and by no other, and with it the patient's record", { skip }, async (t) => {
  const { askAs } = await testService(t)
  const [from, to, third] = [askAs('FAC001'), askAs('FAC002'), askAs('FAC003')]
  const patient = await make(from, PATIENT)
  const result = await make(from, observation(patient.id))
  assert.equal((await to(`GET /fhir/Patient/${patient.id}`)).status, 404)
  const made = await make(from, referral(patient.id, 'FAC002'))
  assert.deepEqual(made['requester'], { reference: 'Organization/FAC001' })
  for (const ask of [from, to]) {
    assert.deepEqual((await ask(`GET /fhir/ServiceRequest/${made.id}`)).body, made)
    assert.equal((await ask(`GET /fhir/ServiceRequest/${made.id}/_history/1`)).status, 200)
    assert.deepEqual((await ask(`GET /fhir/Patient/${patient.id}`)).body, patient)
    assert.equal((await ask(`GET /fhir/Patient/${patient.id}/_history`)).body['total'], 1)
    assert.equal(resourcesOf(await ask('GET /fhir/ServiceRequest?performer=Organization/FAC002&status=active')).length, 1)
  }
  for (const path of [`ServiceRequest/${made.id}`, `Patient/${patient.id}`])
    assert.equal((await third(`GET /fhir/${path}`)).status, 404)
  // The record, and nothing else of the patient.
  assert.equal((await to(`GET /fhir/Observation/${result.id}`)).status, 404)
  assert.deepEqual(
    resourcesOf(await to(`GET /fhir/Patient/${patient.id}/$everything`)).map((each) => each['resourceType']),
    ['Patient', 'ServiceRequest'],
  )
  assert.equal((await put(to, patient, { gender: 'male' })).status, 403)
})

test(
  'the facility that was referred to changes the status as far as it is its to change, and nothing else',
  { skip },
  async (t) => {
    const { askAs } = await testService(t)
    const [from, to] = [askAs('FAC001'), askAs('FAC002')]
    const patient = await make(from, PATIENT)
    const made = await make(from, referral(patient.id, 'FAC002'))
    assert.equal((await put(to, made, { status: 'on-hold', note: [{ text: 'x' }] })).status, 403)
    assert.equal((await put(to, made, { performer: [{ reference: 'Organization/FAC003' }] })).status, 403)
    assert.equal((await put(to, made, { status: 'draft' })).status, 422)
    assert.equal((await put(to, made, { status: 'on-hold' })).status, 200)
    const accepted = await put(to, made, { status: 'active' })
    assert.equal(accepted.status, 200, JSON.stringify(accepted.body))
    assert.equal((await put(from, made, { status: 'active', performer: [{ reference: 'Organization/FAC003' }] })).status, 422)
    assert.equal((await put(to, made, { status: 'completed' })).status, 200)
    assert.equal((await put(from, made, { status: 'active' })).status, 422)
    const history = await from(`GET /fhir/ServiceRequest/${made.id}/_history`)
    assert.deepEqual(
      resourcesOf(history).map(({ status }) => status),
      ['completed', 'active', 'on-hold', 'active'],
    )
    const changes = resourcesOf(await to(`GET /fhir/Provenance?target=ServiceRequest/${made.id}`))
    assert.deepEqual(
      changes.map((each) => [at(each, 'activity.coding.1.code'), at(each, 'agent.0.onBehalfOf.reference')]),
      [
        ['ReferralMade', 'Organization/FAC001'],
        ['ReferralHeld', 'Organization/FAC002'],
        ['ReferralAccepted', 'Organization/FAC002'],
        ['ReferralCompleted', 'Organization/FAC002'],
      ],
    )
  },
)

test('a referral that cannot be is refused', { skip }, async (t) => {
  const { askAs } = await testService(t)
  const [ask, other] = [askAs('FAC001'), askAs('FAC002')]
  const patient = await make(ask, PATIENT)
  const theirs = await make(other, PATIENT)
  const { id: _id, meta: _meta, ...third } = (await askAs('GROUP')('GET /fhir/Organization/FAC003')).body
  await askAs('GROUP')('PUT /fhir/Organization/FAC003', { body: { ...third, id: 'FAC003', active: false } })
  const wrong = [
    referral(patient.id, 'FAC001'),
    referral(patient.id, 'FAC003'),
    referral(patient.id, 'FAC009'),
    referral(theirs.id, 'FAC002'),
    referral(patient.id, 'FAC002', { requester: { reference: 'Organization/FAC002' } }),
    referral(patient.id, 'FAC002', { performer: undefined }),
  ]
  for (const body of wrong) assert.equal((await ask('POST /fhir/ServiceRequest', { body })).status, 422, JSON.stringify(body))
})

test(
  'who was sent a patient can take the patient in by a number of its own, and then write of the patient',
  { skip },
  async (t) => {
    const { askAs, admin } = await testService(t)
    const [from, to, third] = [askAs('FAC001'), askAs('FAC002'), askAs('FAC003')]
    const patient = await make(from, PATIENT)
    const before = await to('POST /fhir/Observation', { body: observation(patient.id) })
    assert.equal(before.status, 422)
    const headers = { 'content-type': 'application/json' }
    assert.equal((await to(`POST /patients/${patient.id}/known-at`, { body: {}, headers })).status, 404)
    const made = await make(from, referral(patient.id, 'FAC002'))
    assert.equal((await to('POST /fhir/Observation', { body: observation(patient.id) })).status, 422)
    const known = await to(`POST /patients/${patient.id}/known-at`, { body: {}, headers })
    const events = await admin.query<{ stream: string; version: number; at: Date }>(
      "select stream, version, at from events where type = 'PatientMadeKnown'",
    )
    const [event] = events.rows.map((each) => ({ ...each, at: each.at.toISOString() }))
    assert.deepEqual(known.body, { facility: 'FAC002', patient: patient.id, mrn: '00000001', ...event })
    assert.deepEqual([known.status, event?.stream, known.headers['etag']], [201, `PatientFacility/FAC002.${patient.id}`, 'W/"1"'])
    assert.equal((await to(`POST /patients/${patient.id}/known-at`, { body: {}, headers })).status, 409)
    assert.equal((await from(`POST /patients/${patient.id}/known-at`, { body: {}, headers })).status, 409)
    assert.equal((await third(`POST /patients/${patient.id}/known-at`, { body: {}, headers })).status, 404)
    const result = await make(to, observation(patient.id))
    assert.equal((await from(`GET /fhir/Observation/${result.id}`)).status, 404)
    // It stays known when the referral has ended, by either number.
    await put(from, made, { status: 'revoked' })
    for (const number of [`${MRN}FAC002|00000001`, `${MRN}FAC001|${String(at(patient, 'identifier.0.value'))}`]) {
      assert.deepEqual(
        resourcesOf(await to(`GET /fhir/Patient?identifier=${number}`)).map(({ id }) => id),
        [patient.id],
        number,
      )
    }
    const { rows } = await admin.query("select count(*)::int as n from events where stream like 'PatientFacility/%'")
    assert.deepEqual(rows, [{ n: 1 }])
  },
)

test(
  'medical record numbers are given once: by many at once, beside numbers that came otherwise, after a recovery',
  { skip },
  async (t) => {
    const { askAs, admin } = await testService(t)
    const ask = askAs('FAC001')
    const numberOf = (patient: Found): string => String(at(patient, 'identifier.0.value'))
    const many = await Promise.all(Array.from({ length: 6 }, async () => make(ask, PATIENT)))
    assert.deepEqual(many.map(numberOf).toSorted(), ['00000001', '00000002', '00000003', '00000004', '00000005', '00000006'])
    await make(ask, { ...PATIENT, identifier: [{ system: `${MRN}FAC001`, value: '00000007' }] })
    await make(ask, { ...PATIENT, identifier: [{ system: `${MRN}FAC001`, value: '00000042' }] })
    const taken = await ask('POST /fhir/Patient', {
      body: { ...PATIENT, identifier: [{ system: `${MRN}FAC001`, value: '00000042' }] },
    })
    assert.equal(taken.status, 409)
    assert.equal(numberOf(await make(ask, PATIENT)), '00000043')
    assert.equal(numberOf(await make(askAs('FAC002'), PATIENT)), '00000001')
    const refused = await ask('POST /fhir/Patient', {
      body: { ...PATIENT, identifier: [{ system: `${MRN}FAC002`, value: '1' }] },
    })
    assert.equal(refused.status, 422)
    const renumbered = await put(ask, many[0]!, { identifier: [{ system: `${MRN}FAC001`, value: '99' }] })
    assert.equal(renumbered.status, 422)
    // As after a recovery: the counter last counted on another timeline.
    await admin.query("update mrn_counters set cluster = 'another/00000001'")
    assert.equal(numberOf(await make(ask, PATIENT)), '00010044')
    assert.equal(numberOf(await make(ask, PATIENT)), '00010045')
    await make(ask, { ...PATIENT, identifier: [{ system: `${MRN}FAC001`, value: '99999999' }] })
    await make(ask, { ...PATIENT, identifier: [{ system: `${MRN}FAC001`, value: '00010046' }] })
    assert.deepEqual([numberOf(await make(ask, PATIENT)), numberOf(await make(ask, PATIENT))], ['100000000', '100000001'])
  },
)

test('a copy of a database gives none of the numbers that the original may have given since', { skip }, async (t) => {
  const { askAs, ...hospital } = await testService(t)
  await make(askAs('FAC001'), PATIENT)
  const next = async ({ database }: Pick<typeof hospital, 'database'>): Promise<unknown> =>
    database.transaction(facility('FAC001'), async ({ client }) => {
      const { rows } = await client.query<{ mrn: string }>('select hospital.next_mrn() as mrn')
      return rows[0]?.mrn
    })
  const copy = await copyOf(t, hospital)
  assert.deepEqual([await next(hospital), await next(hospital)], ['00000002', '00000003'])
  assert.deepEqual([await next(copy), await next(copy)], ['00010002', '00010003'])
})
