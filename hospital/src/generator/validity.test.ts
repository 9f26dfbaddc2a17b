import assert from 'node:assert/strict'
import test from 'node:test'
import { skip, testHospital } from '../../test/services/hospital-database.ts'
import { validate } from '../fhir/validate.ts'
import { generate } from './generate.ts'

test('every generated resource is valid FHIR R4', { skip }, async (t) => {
  const { admin, connectionString, home: filesDirectory } = await testHospital(t, [])
  await generate({
    seed: 3,
    facilities: 4,
    patients: 250,
    untilMs: Date.parse('2026-01-01T00:00:00Z'),
    connectionString,
    filesDirectory,
  })
  const { rows } = await admin.query<{ stream: string; content: { resourceType: string } }>(
    "select stream, hospital.upcast(stream, schema_version, facility, payload) -> 'resource' as content from events where stream !~ '^(User|PatientFacility)/'",
  )
  assert.ok(rows.length > 2000)
  const types = new Set<string>()
  for (const { stream, content } of rows) {
    const { problems } = await validate(content, content.resourceType)
    assert.deepEqual(problems, [], stream)
    types.add(content.resourceType)
  }
  assert.equal(types.size, 11)
})
