import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connect } from 'node:tls'
import test, { after } from 'node:test'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import { loadSettings } from '../../src/server/settings.ts'
import { testAuthority, type Certificate } from '../services/certificates.ts'
import { controlPlane } from '../services/control-plane.ts'
import { strangeSystem } from '../services/strange-system.ts'
import { stopTestStore, testDatabase } from '../services/store.ts'
import { waitUntil } from '../services/wait-until.ts'

after(stopTestStore)

/** The serial number of the certificate that a server shows to whoever trusts `ca`. */
async function shownSerial(port: number, ca: string): Promise<string> {
  return await new Promise((settle, reject) => {
    const socket = connect({ port, host: '127.0.0.1', ca, servername: 'localhost', maxVersion: 'TLSv1.2' }, () => {
      settle(socket.getPeerCertificate().serialNumber)
      socket.destroy()
    })
    socket.once('error', reject)
  })
}

test('TLS by files: a changed certificate is taken without a restart, a wrong one leaves the old one in force', async (t) => {
  const directory = await mkdtemp(join(await openTemporaryDirectory(), 'resus-tls-'))
  t.after(async () => rm(directory, { recursive: true }))
  const authority = testAuthority()
  const [certificate, key] = [join(directory, 'server.crt'), join(directory, 'server.key')]
  const write = async ({ cert, key: secret }: Certificate) => {
    await writeFile(key, secret, { mode: 0o600 })
    await writeFile(certificate, cert)
  }
  await write(authority.issue(['localhost']))
  const settings = { tls: { certificate: `file:${certificate}`, key: `file:${key}` } }
  await using plane = await controlPlane(t, await strangeSystem(t), { settings, databaseUrl: await testDatabase() })
  assert.match(plane.url, /^https:/)
  const port = Number(new URL(plane.url).port)
  const first = await shownSerial(port, authority.cert)
  await write(authority.issue(['localhost']))
  await waitUntil('another certificate is shown', async () => (await shownSerial(port, authority.cert)) !== first)
  const second = await shownSerial(port, authority.cert)
  await writeFile(certificate, 'no certificate')
  await waitUntil('it is reported', () => plane.reports.some((text) => text.includes('cannot be used')))
  assert.equal(await shownSerial(port, authority.cert), second)
})

test('plain HTTP is for loopback alone, unless it is said', async (t) => {
  const directory = await mkdtemp(join(await openTemporaryDirectory(), 'resus-settings-'))
  t.after(async () => rm(directory, { recursive: true }))
  const path = join(directory, 'server.yaml')
  const load = async (text: string) => {
    await writeFile(path, text)
    return await loadSettings(path, { named: true })
  }
  for (const address of ['0.0.0.0:7400', '[::]:7400', 'resus.example:7400', '127.0.0.1.example:7400']) {
    await assert.rejects(load(`listen: "${address}"`), { code: 'CONFIG_INVALID', message: /plain HTTP is for loopback alone/ })
    assert.equal((await load(`listen: "${address}"\nplainHttp: anywhere`)).listen.port, 7400)
  }
  assert.deepEqual((await load('listen: "[::1]:0"')).listen, { host: '::1', port: 0 })
  await assert.rejects(load('tls: { certificate: "-----BEGIN", key: "env:KEY" }'), { code: 'CONFIG_INVALID' })
  await assert.rejects(
    load('channels: { desk: { kind: webhook, url: "https://u:hunter2@desk.example/", secret: "file:x" } }'),
    (error) => {
      assert(!String(error).includes('hunter2'))
      return true
    },
  )
  await assert.rejects(loadSettings(join(directory, 'missing.yaml'), { named: true }), { code: 'CONFIG_UNREADABLE' })
  assert.equal((await loadSettings(join(directory, 'missing.yaml'), { named: false })).listen.port, 7400)
})
