import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { eventWhenChanged, eventWhenMade, LIFECYCLES, mayFollow, RECEIVED_REFERRAL } from '../fhir/statuses.ts'
import { validate } from '../fhir/validate.ts'
import { generate } from './generate.ts'

async function generated(t: TestContext, patients: number): Promise<TestHospital> {
  const hospital = await testHospital(t, [])
  const { connectionString, home: filesDirectory } = hospital
  const size = { seed: 3, facilities: 4, patients, untilMs: Date.parse('2026-01-01T00:00:00Z') }
  await generate({ ...size, connectionString, filesDirectory })
  return hospital
}

test('every generated resource is valid FHIR R4', { skip }, async (t) => {
  const { admin } = await generated(t, 250)
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

test(
  'every generated change is one that the service lets happen, and is called what the service calls it',
  { skip },
  async (t) => {
    const { admin } = await generated(t, 2000)
    const { rows } = await admin.query<{
      kind: keyof typeof LIFECYCLES
      before: string | null
      after: string
      type: string
      isReceiver: boolean
    }>(
      `select split_part(stream, '/', 1) as kind, type, payload #>> '{resource,status}' as after,
      lag(payload #>> '{resource,status}') over (partition by stream order by version) as before,
      payload #>> '{resource,performer,0,reference}' = 'Organization/' || facility as "isReceiver"
    from events where split_part(stream, '/', 1) = any ($1)`,
      [Object.keys(LIFECYCLES)],
    )
    const counts = new Map<string, number>()
    for (const { kind, before, after, type, isReceiver } of rows) {
      const lifecycle = kind === 'ServiceRequest' && isReceiver ? RECEIVED_REFERRAL : LIFECYCLES[kind]
      assert.ok(before === null || mayFollow(lifecycle, before, after), `${type}: ${before} to ${after}`)
      assert.equal(type, before === null ? eventWhenMade(lifecycle, after) : eventWhenChanged(lifecycle, before, after))
      counts.set(type, (counts.get(type) ?? 0) + 1)
    }
    const share = (type: string): number => (counts.get(type) ?? 0) / (counts.get('ReferralMade') ?? 0)
    // Of those that were sent: most are seen, some are declined, fewer are taken back.
    for (const [type, least, most] of [
      ['ReferralCompleted', 0.4, 0.8],
      ['ReferralDeclined', 0.02, 0.15],
      ['ReferralWithdrawn', 0.01, 0.12],
      ['ReferralHeld', 0.02, 0.2],
    ] as const) {
      assert.ok(share(type) >= least && share(type) <= most, `${type}: ${counts.get(type)} of ${counts.get('ReferralMade')}`)
    }
  },
)
