import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { loadSettings } from './settings.ts'

test('where the audit trail goes on to: a host, its port, and whom to trust, relative to the file', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-settings-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const path = join(directory, 'server.yaml')
  const load = async (text: string) => {
    await writeFile(path, text)
    return (await loadSettings(path, { named: true })).auditSyslog
  }
  assert.equal(await load('listen: 127.0.0.1:0'), undefined)
  assert.deepEqual(await load('auditSyslog: { host: logs.example }'), { host: 'logs.example', port: 6514, ca: undefined })
  const given = await load('auditSyslog: { host: 10.0.0.9, port: 7000, ca: tls/ca.pem }')
  assert.deepEqual(given, { host: '10.0.0.9', port: 7000, ca: join(directory, 'tls/ca.pem') })
  for (const text of ['{}', '{ host: "a b" }', '{ host: a, port: 0 }', '{ host: a, plain: true }']) {
    await assert.rejects(load(`auditSyslog: ${text}`), { code: 'CONFIG_INVALID' }, text)
  }
})
