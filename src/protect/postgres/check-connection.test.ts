import assert from 'node:assert/strict'
import { chmod, chown, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { testAuthority } from '../../../test/services/certificates.ts'
import { skipUnlessInstalled, testCluster } from '../../../test/services/postgres.ts'
import { Secret } from '../../secret.ts'
import { checkPostgres } from './check.ts'
import { judgePrivacy } from './check-connection.ts'
import { postgresComponentSchema } from './component.ts'
import { ServerSession } from './server-session.ts'

const skip = await skipUnlessInstalled(15)
const settings = postgresComponentSchema.parse({ kind: 'postgres', tier: 'critical', connection: 'x', dataDirectory: '/' })

/** A real server with TLS, whose certificate names `localhost`. */
async function tlsServer(t: TestContext) {
  const cluster = await testCluster(t, { major: 15 })
  const authority = testAuthority()
  const { key, cert } = authority.issue(['localhost'])
  const { uid, gid } = await stat(cluster.directory)
  for (const [name, text] of Object.entries({ 'server.key': key, 'server.crt': cert })) {
    const path = join(cluster.directory, name)
    await writeFile(path, text)
    await chmod(path, 0o600)
    await chown(path, uid, gid)
  }
  const ca = join(cluster.home, 'authority.crt')
  await writeFile(ca, authority.cert)
  await writeFile(join(cluster.home, 'other.crt'), testAuthority('Somebody else').cert)
  await cluster.stop()
  await cluster.start({ ssl: 'on' })
  const url = (host: string, query: string) => `postgres://postgres@${host}:${cluster.port}/postgres?${query}`
  return { cluster, ca, other: join(cluster.home, 'other.crt'), url }
}

function connectTo(connectionString: string): Promise<ServerSession> {
  return ServerSession.connect({ ...settings, name: 'his-db', connection: new Secret(connectionString) })
}

test('verify-full with sslrootcert is verified TLS, and says until when the certificate holds', { skip }, async (t) => {
  const { ca, other, url, cluster } = await tlsServer(t)
  const connection = url('localhost', `sslmode=verify-full&sslrootcert=${ca}`)
  const component = { ...settings, name: 'his-db', connection: new Secret(connection), dataDirectory: cluster.directory }
  const signal = new AbortController().signal
  const items = await checkPostgres({ repository: undefined, component, stateDirectory: cluster.home, signal })
  const item = items.find(({ name }) => name === 'connection is private')
  assert.equal(item?.verdict, 'passed')
  assert.match(item.found, /^verified TLS; the certificate of the server holds until \d{4}-\d\d-\d\d$/)
  assert.equal(items.find(({ name }) => name === 'replication connection')?.verdict, 'passed')

  // Another authority, and a name that is not in the certificate.
  const unreachable = { code: 'POSTGRES_UNREACHABLE' }
  await assert.rejects(connectTo(url('localhost', `sslmode=verify-full&sslrootcert=${other}`)), unreachable)
  await assert.rejects(connectTo(url('127.0.0.1', `sslmode=verify-full&sslrootcert=${ca}`)), unreachable)
})

test('loopback and a Unix socket are private, and other hosts without verify-full are not proven', { skip }, async (t) => {
  const { ca, url, cluster } = await tlsServer(t)
  const judged = async (text: string, hosts: string[] = []) => {
    await using session = await connectTo(text)
    return judgePrivacy(text, session.socket, hosts)
  }
  const verified = `sslmode=verify-full&sslrootcert=${ca}`
  assert.equal((await judged(url('127.0.0.1', ''))).verdict, 'passed')
  const socket = `postgres://postgres@/postgres?host=${encodeURIComponent(join(cluster.home, 'socket'))}&port=${cluster.port}`
  assert.match((await judged(socket)).found, /a socket of this host/)
  for (const [query, found] of [
    ['', /^no TLS, and "hosts" names db2:5433$/],
    [`sslmode=require&sslrootcert=${ca}`, /^TLS, without sslmode=verify-full, and/],
    [`sslmode=verify-ca&uselibpqcompat=true&sslrootcert=${ca}`, /^TLS, without sslmode=verify-full, and/],
    ['sslmode=no-verify', /^TLS that anybody can answer/],
  ] as const) {
    const judgement = await judged(url('localhost', query), ['127.0.0.1:5432', '[::1]:5432', 'localhost', 'db2:5433'])
    assert.equal(judgement.verdict, 'not proven')
    assert.match(judgement.found, found)
    assert.match(judgement.hint, /sslmode=verify-full&sslrootcert=/)
  }
  assert.equal((await judged(url('localhost', verified), ['db2'])).verdict, 'passed')
})
