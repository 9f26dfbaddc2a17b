import assert from 'node:assert/strict'
import test from 'node:test'
import { encounter, make, observation, PATIENT } from '../../test/services/fhir-samples.ts'
import { skip } from '../../test/services/hospital-database.ts'
import { at, listOf, resourcesOf, testService, type Answer } from '../../test/services/hospital-service.ts'

interface Entry {
  readonly fullUrl?: string
  readonly resource?: object
  readonly request: Readonly<Record<string, string>>
}

function bundle(type: string, ...entry: readonly Entry[]): object {
  return { resourceType: 'Bundle', type, entry }
}

function post(resource: object, more: Readonly<Record<string, string>> = {}, fullUrl?: string): Entry {
  const { resourceType } = resource as { resourceType: string }
  return { ...(fullUrl === undefined ? {} : { fullUrl }), resource, request: { method: 'POST', url: resourceType, ...more } }
}

function put(resource: object, more: Readonly<Record<string, string>> = {}): Entry {
  const { resourceType, id } = resource as { resourceType: string; id: string }
  return { resource, request: { method: 'PUT', url: `${resourceType}/${id}`, ...more } }
}

function statusesOf({ body }: Answer): unknown[] {
  return listOf(body['entry']).map((each) => String(at(each, 'response.status')).slice(0, 3))
}

const [P, E] = ['urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9', 'urn:uuid:05efabf0-4be2-4561-91ce-51548425acba']

test('a transaction makes what refers to each other, in whatever order it comes', { skip }, async (t) => {
  const { askAs, admin } = await testService(t)
  const ask = askAs('FAC001')
  const content = bundle(
    'transaction',
    post({ ...observation('x'), subject: { reference: P }, encounter: { reference: E }, focus: [{ reference: P }] }),
    post({ ...encounter('x'), subject: { reference: P } }, {}, E),
    { request: { method: 'GET', url: 'Patient?family=adeyemi' } },
    post(PATIENT, {}, P),
  )
  const answer = await ask('POST /fhir', { body: content, headers: { prefer: 'return=representation' } })
  assert.equal(answer.status, 200, JSON.stringify(answer.body))
  assert.equal(answer.body['type'], 'transaction-response')
  assert.deepEqual(statusesOf(answer), ['201', '201', '200', '201'])
  const [result, visit, found, patient] = resourcesOf(answer)
  assert.deepEqual(
    [at(result, 'subject.reference'), at(result, 'focus.0.reference')],
    [`Patient/${String(at(patient, 'id'))}`, `Patient/${String(at(patient, 'id'))}`],
  )
  assert.equal(at(result, 'encounter.reference'), `Encounter/${String(at(visit, 'id'))}`)
  // What is read is read last.
  assert.equal(at(found, 'entry.0.resource.id'), at(patient, 'id'))
  assert.equal(at(answer.body, 'entry.3.response.location'), `Patient/${String(at(patient, 'id'))}/_history/1`)
  const { rows } = await admin.query(
    "select count(*)::int as n, count(distinct at::date)::int from events where stream ~ '^(Patient|Encounter|Observation)/'",
  )
  assert.equal(at(rows, '0.n'), 3)
  const silent = await ask('POST /fhir', { body: bundle('transaction', post(PATIENT)) })
  assert.equal(at(silent.body, 'entry.0.resource'), undefined)
})

test(
  'of a transaction in which anything is wrong nothing is done, and all that is wrong is named by entry',
  { skip },
  async (t) => {
    const { askAs, admin } = await testService(t)
    const ask = askAs('FAC001')
    const patient = await make(ask, PATIENT)
    const before = await admin.query('select count(*) from events')
    const wrong: [string, number, object, string[]][] = [
      [
        'two bad resources',
        422,
        bundle('transaction', post(PATIENT), post({ ...PATIENT, gender: 'f' }), post({ ...PATIENT, birthDate: 'x' })),
        ['Bundle.entry[1].resource.gender', 'Bundle.entry[2].resource.birthDate'],
      ],
      [
        'a reference to nothing',
        422,
        bundle('transaction', post(PATIENT), post(observation('01900000-0000-7000-8000-000000000000'))),
        ['Bundle.entry[1]'],
      ],
      [
        'a reference to no entry',
        422,
        bundle('transaction', post(PATIENT), post({ ...observation('x'), subject: { reference: P } })),
        ['Bundle.entry[1].resource.subject.reference'],
      ],
      [
        'an old version',
        412,
        bundle('transaction', post(PATIENT), put({ ...patient, gender: 'male' }, { ifMatch: 'W/"7"' })),
        ['Bundle.entry[1]'],
      ],
      [
        'a change of nothing',
        405,
        bundle('transaction', post(PATIENT), put({ ...PATIENT, id: '01900000-0000-7000-8000-000000000000' })),
        ['Bundle.entry[1]'],
      ],
      ['two changes of one', 400, bundle('transaction', put(patient), put(patient)), ['Bundle.entry[1]']],
      [
        'a deletion',
        405,
        bundle('transaction', post(PATIENT), { request: { method: 'DELETE', url: `Patient/${patient.id}` } }),
        ['Bundle.entry[1]'],
      ],
      [
        'reading what is not there',
        404,
        bundle('transaction', post(PATIENT), { request: { method: 'GET', url: 'Patient/x' } }),
        ['Bundle.entry[1]'],
      ],
      [
        'no request',
        422,
        { resourceType: 'Bundle', type: 'transaction', entry: [{ resource: PATIENT }] },
        ['Bundle.entry[0].request'],
      ],
      ['no entry', 422, { resourceType: 'Bundle', type: 'transaction', entry: [null] }, []],
      [
        'a strange method',
        422,
        bundle('transaction', { resource: PATIENT, request: { method: 'MAKE', url: 'Patient' } }),
        ['Bundle.entry[0].request.method'],
      ],
      [
        'a strange URL',
        400,
        bundle('transaction', { resource: PATIENT, request: { method: 'POST', url: '../facilities' } }),
        ['Bundle.entry[0].request.url'],
      ],
      ['a type that is not served', 404, bundle('transaction', post({ resourceType: 'Practitioner' })), ['Bundle.entry[0]']],
      [
        'the body of another type',
        400,
        bundle('transaction', { resource: PATIENT, request: { method: 'POST', url: 'Encounter' } }),
        ['Bundle.entry[0].resource.resourceType'],
      ],
    ]
    for (const [name, status, content, expressions] of wrong) {
      const answer = await ask('POST /fhir', { body: content })
      assert.equal(answer.status, status, `${name}: ${JSON.stringify(answer.body)}`)
      const said = listOf(answer.body['issue']).flatMap(({ expression }) => (expression ?? []) as string[])
      for (const each of expressions) assert.ok(said.includes(each), `${name}: ${said.join(' ')}`)
    }
    assert.deepEqual((await admin.query('select count(*) from events')).rows, before.rows)
  },
)

test('what a condition finds is not made again, and is what the others refer to', { skip }, async (t) => {
  const ask = (await testService(t)).askAs('FAC001')
  const nin = { system: 'https://nimc.gov.ng/nin', value: '12345678901' }
  const patient = await make(ask, { ...PATIENT, identifier: [nin] })
  const content = bundle(
    'transaction',
    post({ ...PATIENT, identifier: [nin] }, { ifNoneExist: `identifier=${nin.system}|${nin.value}` }, P),
    post({ ...observation('x'), subject: { reference: P }, focus: [{ reference: P }] }),
  )
  const answers = await Promise.all(
    [1, 2, 3].map(async () => ask('POST /fhir', { body: content, headers: { prefer: 'return=representation' } })),
  )
  for (const answer of answers) {
    assert.deepEqual(statusesOf(answer), ['200', '201'], JSON.stringify(answer.body))
    assert.equal(at(resourcesOf(answer)[1], 'subject.reference'), `Patient/${patient.id}`)
  }
  assert.equal((await ask('GET /fhir/Patient?_total=accurate')).body['total'], 1)
})

test('of a batch each entry is done for itself', { skip }, async (t) => {
  const ask = (await testService(t)).askAs('FAC001')
  const patient = await make(ask, PATIENT)
  const answer = await ask('POST /fhir', {
    body: bundle(
      'batch',
      post(observation(patient.id)),
      post({ ...PATIENT, gender: 'f' }),
      put({ ...patient, gender: 'male' }, { ifMatch: 'W/"1"' }),
      { request: { method: 'GET', url: `Patient/${patient.id}` } },
      { request: { method: 'GET', url: `Patient/${patient.id}/_history/7` } },
      { request: { method: 'DELETE', url: `Patient/${patient.id}` } },
      post({ ...observation('x'), subject: { reference: P } }),
    ),
  })
  assert.deepEqual([answer.status, answer.body['type']], [200, 'batch-response'])
  assert.deepEqual(statusesOf(answer), ['201', '422', '200', '200', '404', '405', '422'])
  assert.equal(at(answer.body, 'entry.3.resource.gender'), 'male')
  assert.deepEqual(at(answer.body, 'entry.1.response.outcome.issue.0.expression'), ['Bundle.entry[1].resource.gender'])
})

test('two transactions that change the same things at once end, and one of them may have to try again', { skip }, async (t) => {
  const ask = (await testService(t)).askAs('FAC001')
  const [a, b] = [await make(ask, PATIENT), await make(ask, PATIENT)]
  const answers = await Promise.all(
    Array.from({ length: 6 }, async (_each, index) =>
      ask('POST /fhir', {
        body: index % 2 === 0 ? bundle('transaction', put(a), put(b)) : bundle('transaction', put(b), put(a)),
      }),
    ),
  )
  const statuses = answers.map(({ status }) => status)
  assert.ok(statuses.includes(200), statuses.join(' '))
  assert.ok(
    statuses.every((each) => each === 200 || each === 409),
    JSON.stringify(answers.map(({ body }) => body)),
  )
  const versions = await Promise.all(
    [a, b].map(async ({ id }) => at((await ask(`GET /fhir/Patient/${id}`)).body, 'meta.versionId')),
  )
  assert.equal(versions[0], versions[1])
})
