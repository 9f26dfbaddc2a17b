import assert from 'node:assert/strict'
import test from 'node:test'
import { validate } from './validate.ts'

const PATIENT = {
  resourceType: 'Patient',
  name: [{ family: 'Adeyemi', given: ['Folake'] }],
  gender: 'female',
  birthDate: '1990-04-12',
  managingOrganization: { reference: 'Organization/FAC001' },
}
const OBSERVATION = {
  resourceType: 'Observation',
  status: 'final',
  code: { coding: [{ system: 'http://loinc.org', code: '718-7' }] },
  subject: { reference: 'Patient/1' },
  effectiveDateTime: '2026-01-01T08:00:00+01:00',
  valueQuantity: { value: 12.5, unit: 'g/dL', system: 'http://unitsofmeasure.org', code: 'g/dL' },
}

async function pathsOf(content: { resourceType: string }): Promise<string[]> {
  const { problems } = await validate(content, content.resourceType)
  return problems.map(({ path }) => path).toSorted()
}

test('what is right is taken, and its references are found', async () => {
  assert.deepEqual(await pathsOf(PATIENT), [])
  const { problems, references } = await validate(
    { ...OBSERVATION, performer: [{ reference: 'Organization/FAC001' }] },
    'Observation',
  )
  assert.deepEqual(problems, [])
  assert.deepEqual(
    references.map(({ path, element, type, id }) => [path, element, type, id]),
    [
      ['Observation.subject.reference', 'Observation.subject', 'Patient', '1'],
      ['Observation.performer[0].reference', 'Observation.performer', 'Organization', 'FAC001'],
    ],
  )
})

test('every kind of wrong content is named with its path', async () => {
  const wrong: [string, object, string[]][] = [
    ['an unknown property', { ...PATIENT, surname: 'x' }, ['Patient.surname']],
    ['a property that every object of JavaScript has', { ...PATIENT, constructor: 'x' }, ['Patient.constructor']],
    ['__proto__', JSON.parse('{"resourceType":"Patient","__proto__":{"a":1}}') as object, ['Patient.__proto__']],
    ['a null', { ...PATIENT, gender: null }, ['Patient.gender']],
    ['an empty text', { ...PATIENT, gender: '' }, ['Patient.gender']],
    ['an empty object', { ...PATIENT, maritalStatus: {} }, ['Patient.maritalStatus']],
    ['an empty array', { ...PATIENT, telecom: [] }, ['Patient.telecom']],
    ['a null in an array', { ...PATIENT, name: [{ family: 'A', given: [null] }] }, ['Patient.name[0].given[0]']],
    ['a code that the value set does not have', { ...PATIENT, gender: 'f' }, ['Patient.gender']],
    [
      'a code of a binding further down',
      { ...PATIENT, telecom: [{ system: 'whatsapp', value: '1' }] },
      ['Patient.telecom[0].system'],
    ],
    ['a day that does not exist', { ...PATIENT, birthDate: '2023-02-29' }, ['Patient.birthDate']],
    ['a time without a zone', { ...OBSERVATION, effectiveDateTime: '2026-01-01T08:00:00' }, ['Observation.effectiveDateTime']],
    ['two of a choice', { ...OBSERVATION, valueString: 'x' }, ['Observation.valueString']],
    [
      'a type that is none of the choice',
      { ...OBSERVATION, valueQuantity: undefined, valueMoney: { value: 1 } },
      ['Observation.valueMoney'],
    ],
    ['a reference to the wrong type', { ...OBSERVATION, subject: { reference: 'Encounter/1' } }, ['Observation.subject']],
    [
      'a reference that says it is of another type',
      { ...OBSERVATION, subject: { reference: 'Patient/1', type: 'Group' } },
      ['Observation.subject.reference'],
    ],
    [
      'a reference that leads elsewhere',
      { ...OBSERVATION, subject: { reference: 'http://example.org/fhir/Patient/1' } },
      ['Observation.subject.reference'],
    ],
    [
      'a contained resource that is not there',
      { ...OBSERVATION, specimen: { reference: '#a' } },
      ['Observation.specimen.reference'],
    ],
    ['a text where an object belongs', { ...OBSERVATION, code: 'x' }, ['Observation.code']],
    ['a number where an object belongs', { ...PATIENT, name: [5] }, ['Patient.name[0]']],
    ['an object where a text belongs', { ...PATIENT, gender: { a: 1 } }, ['Patient.gender']],
    ['an array in an array', { ...PATIENT, name: [[{ family: 'x' }]] }, ['Patient.name[0]']],
    ['a character that PostgreSQL cannot keep', { ...PATIENT, implicitRules: 'a\u0000' }, ['Patient.implicitRules']],
    ['half a character', { ...PATIENT, name: [{ family: '\ud800' }] }, ['Patient.name[0].family']],
  ]
  for (const [name, content, paths] of wrong) {
    const found = await pathsOf(JSON.parse(JSON.stringify(content)) as { resourceType: string })
    for (const path of paths)
      assert.ok(
        found.some((each) => each.startsWith(path)),
        `${name}: ${found.join(', ')}`,
      )
  }
})

test('what is missing, what is too much and what contradicts itself is named as well, all at once', async () => {
  const { problems } = await validate(
    {
      resourceType: 'Observation',
      code: { text: 'x' },
      subject: [{ reference: 'Patient/1' }],
      gender: 'x',
      referenceRange: [{ age: { low: { value: 'a' } } }],
    },
    'Observation',
  )
  const paths = problems.map(({ path }) => path)
  for (const path of [
    'Observation.status',
    'Observation.subject',
    'Observation.gender',
    'Observation.referenceRange[0].age.low.value',
  ]) {
    assert.ok(
      paths.some((each) => each === path),
      `${path} is not among ${paths.join(', ')}`,
    )
  }
})

test('extensions of a primitive may stand beside nulls', async () => {
  const extension = [{ url: 'http://hl7.org/fhir/StructureDefinition/data-absent-reason', valueCode: 'masked' }]
  assert.deepEqual(
    await pathsOf({ ...PATIENT, name: [{ family: 'A', given: ['B', null], _given: [null, { extension }] }] } as never),
    [],
  )
  assert.deepEqual(await pathsOf({ ...PATIENT, birthDate: undefined, _birthDate: { extension } } as never), [])
})

test('nesting without end is refused, and not followed', async () => {
  let extension: object = { url: 'x', valueString: 'x' }
  for (let depth = 0; depth < 20_000; depth += 1) extension = { url: 'x', extension: [extension] }
  const { problems } = await validate({ ...PATIENT, extension: [extension] }, 'Patient')
  assert.match(problems[0]?.message ?? '', /nested more than/)
})

test('what is no resource of the type is refused at once', async () => {
  for (const content of [null, 5, 'x', [], {}, PATIENT, { resourceType: 7 }]) {
    await assert.rejects(validate(content, 'Observation'), { code: 'BAD_REQUEST' })
  }
})
