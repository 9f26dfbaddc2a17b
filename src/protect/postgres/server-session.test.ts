import assert from 'node:assert/strict'
import test from 'node:test'
import { skipUnlessInstalled, testCluster } from '../../../test/services/postgres.ts'
import { connect } from '../../../test/services/stream.ts'
import { Secret } from '../../secret.ts'
import { postgresComponentSchema } from './component.ts'
import { ServerSession } from './server-session.ts'
import { SetupSession } from './setup-session.ts'

const skip = await skipUnlessInstalled(15)

test('what the server refuses is told as its answer, with the statement, and not as a bug', { skip }, async (t) => {
  const cluster = await testCluster(t, { major: 15 })
  const client = await connect(t, cluster.connectionString)
  await client.query('create role resus login; revoke execute on function pg_control_system() from public')
  const connection = new Secret(cluster.connectionString.replace('postgres@', 'resus@'))
  const settings = postgresComponentSchema.parse({ kind: 'postgres', tier: 'critical', connection: 'x', dataDirectory: '/' })
  await using session = await ServerSession.connect({ ...settings, name: 'his-db', connection })
  await assert.rejects(session.query('select *\n  from pg_authid'), {
    code: 'POSTGRES_FAILED',
    message: 'the server of "his-db" does not answer "select * from pg_authid": permission denied for table pg_authid',
  })
  await assert.rejects(session.facts(), { code: 'SERVER_SETTING' })
  await assert.rejects(session.startBackup('a label'), { code: 'SERVER_SETTING' })
  await using setup = await SetupSession.connect(connection)
  await assert.rejects(setup.query('select 1 / 0'), { code: 'POSTGRES_FAILED', message: /division by zero/ })
})
