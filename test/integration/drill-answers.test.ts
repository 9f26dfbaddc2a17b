import assert from 'node:assert/strict'
import test from 'node:test'
import { heartbeatSetup } from '../../src/protect/postgres/heartbeat-setup.ts'
import { rehearse, type ChecksInput } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

type Query = NonNullable<ChecksInput['sql']>[number]

const QUERIES: readonly [query: string, expect: Query['expect'], verdict: string, found: RegExp][] = [
  [`select '5550199'::text`, { equals: 5_550_199 }, 'failed', /^hmac-sha256:/],
  [`select '12 '::char(3)`, { equals: 'x' }, 'failed', /^hmac-sha256:/],
  ['select 9007199254740993::bigint', { equals: 9_007_199_254_740_992 }, 'failed', /^9007199254740993$/],
  ['select 9007199254740993::bigint', { most: 9_007_199_254_740_992 }, 'failed', /^9007199254740993$/],
  ['select 9007199254740993::bigint', { least: 1 }, 'verified', /^9007199254740993$/],
  ['select 12.50::numeric', { equals: 12.5 }, 'verified', /^12\.50$/],
  [`select 'NaN'::float8`, { least: 0 }, 'failed', /^NaN$/],
  ['select 1.25::float4', { equals: 1, tolerance: 0.5 }, 'verified', /^1\.25$/],
  ['select null::int', { least: 0 }, 'failed', /^null$/],
  [`select now() - interval '3 minutes'`, { within: { minutes: 60 } }, 'verified', /minutes before/],
  [`select now() + interval '10 years'`, { within: { minutes: 60 } }, 'failed', /minutes after/],
  [`select pg_sleep(30)::text`, { equals: '' }, 'not proven', /SQLSTATE 57014/],
]

test(
  'an answer is judged by its type, exactly, and in time; a query that takes too long proves nothing',
  { skip: await skipUnlessInstalled(18) },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await cluster.query(heartbeatSetup('postgres'))
    await cluster.query(`update resus.heartbeat set sequence = 7, at = now() + interval '20 seconds'`)
    await cluster.backup()
    const sql = QUERIES.map(([query, expect], index) => ({ name: `${index}`, query, expect, minutes: 0.02 }))
    const { found } = await rehearse(cluster, { sql })
    for (const [index, [query, , verdict, says]] of QUERIES.entries()) {
      const check = found(`sql: ${index}`)
      assert.deepEqual([check.verdict, says.test(check.found)], [verdict, true], `${query}: ${check.found}`)
    }
    // The newest is only near to when the drill began.
    assert.equal(found('heartbeat').verdict, 'verified', found('heartbeat').found)
  },
)
