import assert from 'node:assert/strict'
import test from 'node:test'
import type { Json } from './canonical-json.ts'
import { holdBack } from './settings-weakening.ts'

const MAIL = {
  kind: 'email',
  to: ['a@hospital.example', 'b@hospital.example'],
  from: 'resus@hospital.example',
  smtp: { host: 'mail' },
  severities: ['alarm', 'warning'],
  digest: true,
  withoutStore: true,
}
const PROVIDER = {
  issuer: 'https://idp.example',
  clientId: 'resus',
  clientSecret: 'file:/secret',
  groups: { viewer: ['staff', 'guests'], operator: 'dba', auditor: [] },
}
const BEFORE: Readonly<Record<string, Json>> = {
  listen: '127.0.0.1:7400',
  state: '/state',
  restoreRoots: ['/restores', '/more'],
  url: 'https://resus.example',
  identityProvider: PROVIDER,
  channels: { mail: MAIL },
  digest: { at: '07:00', timeZone: 'UTC' },
  deadMan: { url: 'file:/ping', everySeconds: 60 },
  auditSyslog: { host: 'logs', port: 6514 },
}
const PLAIN = { ...BEFORE, listen: '10.0.0.1:7400', plainHttp: 'anywhere' }

const isPlain = ({ listen, tls }: Readonly<Record<string, Json>>) =>
  tls === undefined && typeof listen === 'string' && !listen.startsWith('127.')
const held = (before: Readonly<Record<string, Json>>, wanted: Readonly<Record<string, Json>>) => holdBack(before, wanted, isPlain)

/** Without what is undefined. */
function changed(change: Readonly<Record<string, Json | undefined>>, before = BEFORE): Readonly<Record<string, Json>> {
  return JSON.parse(JSON.stringify({ ...before, ...change })) as Readonly<Record<string, Json>>
}

const HARMLESS: readonly Readonly<Record<string, Json | undefined>>[] = [
  { listen: '127.0.0.1:7401' },
  { listen: '10.0.0.1:7400', tls: { certificate: 'file:/c', key: 'file:/k' } },
  { node: 'other' },
  { state: '/elsewhere' },
  { restoreRoots: [] },
  { restoreRoots: ['/restores/drills', '/more'] },
  { identityProvider: undefined },
  { identityProvider: { ...PROVIDER, groups: { viewer: 'staff', operator: [], auditor: [] } } },
  { channels: { mail: MAIL, desk: { kind: 'webhook', url: 'https://desk' } } },
  { channels: { mail: { ...MAIL, to: [...MAIL.to, 'c@hospital.example'], severities: ['alarm', 'warning', 'info'] } } },
  { digest: { at: '08:00', timeZone: 'Africa/Lagos' } },
  { deadMan: { url: 'file:/ping', everySeconds: 30 } },
]

const WEAKENING: readonly (readonly [string, Readonly<Record<string, Json | undefined>>])[] = [
  ['listen', { listen: '10.0.0.1:7400', plainHttp: 'anywhere' }],
  ['restoreRoots', { restoreRoots: ['/restores', '/more', '/third'] }],
  ['restoreRoots', { restoreRoots: ['/'] }],
  ['restoreRoots', { restoreRoots: ['/restores-elsewhere'] }],
  ['url', { url: 'https://evil.example' }],
  ['url', { url: undefined }],
  ['identityProvider', { identityProvider: { ...PROVIDER, issuer: 'https://evil.example' } }],
  ['identityProvider', { identityProvider: { ...PROVIDER, clientSecret: 'file:/other' } }],
  ['identityProvider', { identityProvider: { ...PROVIDER, groups: { ...PROVIDER.groups, operator: ['dba', 'staff'] } } }],
  ['identityProvider', { identityProvider: { ...PROVIDER, groups: { ...PROVIDER.groups, auditor: 'staff' } } }],
  ['channels.mail', { channels: {} }],
  ['channels.mail', { channels: undefined }],
  ['channels.mail', { channels: { mail: { ...MAIL, to: ['c@hospital.example'] } } }],
  ['channels.mail', { channels: { mail: { ...MAIL, severities: ['alarm'] } } }],
  ['channels.mail', { channels: { mail: { ...MAIL, digest: false } } }],
  ['channels.mail', { channels: { mail: { ...MAIL, withoutStore: false } } }],
  ['channels.mail', { channels: { mail: { ...MAIL, smtp: { host: 'elsewhere' } } } }],
  ['deadMan', { deadMan: undefined }],
  ['deadMan', { deadMan: { url: 'file:/ping', everySeconds: 61 } }],
  ['deadMan', { deadMan: { url: 'file:/other', everySeconds: 60 } }],
  ['auditSyslog', { auditSyslog: undefined }],
  ['auditSyslog', { auditSyslog: { host: 'elsewhere', port: 6514 } }],
  ['auditSyslog', { auditSyslog: { host: 'logs', port: 6514, ca: '/own' } }],
  ['something-new', { 'something-new': 1 }],
]

test('settings that weaken nothing are in force as they are wanted', () => {
  for (const change of HARMLESS) {
    const wanted = changed(change)
    assert.deepEqual(held(BEFORE, wanted), { document: wanted, changes: [] }, JSON.stringify(change))
  }
})

test('what weakens stays as it was, and the rest of the file is in force', () => {
  for (const [path, change] of WEAKENING) {
    const wanted = changed({ ...change, digest: { at: '09:00', timeZone: 'UTC' } })
    const { document, changes } = held(BEFORE, wanted)
    assert.equal(changes[0]?.path, path, JSON.stringify(change))
    assert.deepEqual(document, changed({ digest: { at: '09:00', timeZone: 'UTC' } }), JSON.stringify(change))
  }
})

test('a provider, or a place to restore to, where there was none', () => {
  const before = changed({ identityProvider: undefined, restoreRoots: [] })
  assert.deepEqual(
    held(before, BEFORE)
      .changes.map(({ path }) => path)
      .toSorted(),
    ['identityProvider', 'restoreRoots'],
  )
})

test('who listens beyond loopback without TLS already may change the port, and not the address', () => {
  assert.deepEqual(held(PLAIN, changed({ listen: '10.0.0.1:9' }, PLAIN)).changes, [])
  assert.equal(held(PLAIN, changed({ listen: '0.0.0.0:9' }, PLAIN)).document['listen'], '10.0.0.1:7400')
})

test('of several channels the one that is muted stays as it was', () => {
  const two = changed({ channels: { mail: MAIL, desk: MAIL } })
  const { document, changes } = held(two, changed({ channels: { desk: MAIL, third: MAIL } }))
  assert.deepEqual(
    changes.map(({ path }) => path),
    ['channels.mail'],
  )
  assert.deepEqual(document['channels'], { desk: MAIL, third: MAIL, mail: MAIL })
})
