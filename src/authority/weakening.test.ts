import assert from 'node:assert/strict'
import test from 'node:test'
import type { Json } from './canonical-json.ts'
import { weakenings } from './weakening.ts'

const BEFORE = {
  system: 'osun',
  state: '/var/lib/resus/state',
  repository: { storages: [{ name: 'vault', kind: 'directory', path: '/vault' }], key: { passphrase: 'file:/etc/resus/key' } },
  objectives: { rpoMinutes: 5, availabilityPercent: 99.9, scenarios: { 'host-lost': { rtoMinutes: 30 } } },
  facilities: { ila: { name: 'Ila', lga: 'Ila' }, ede: { name: 'Ede' } },
  components: {
    'his-db': {
      kind: 'postgres',
      tier: 'high',
      connection: 'env:HIS',
      dataDirectory: '/data',
      stream: { synchronous: false, acknowledge: 'spool', slot: 'resus', hosts: [] },
      keep: { daily: 7, weekly: 4, monthly: 12, pitrDays: 30 },
      schedules: { backup: { after: '6 h' }, prove: { cron: '0 3 * * *' } },
      facilities: ['ila', 'ede'],
      compressionLevel: 1,
    },
  },
}

/** The document with something else at a path; undefined takes it away. */
function withValue(path: string, value: unknown): Json {
  const document = structuredClone(BEFORE) as unknown as Record<string, unknown>
  const names = path.split('/')
  let at = document
  for (const name of names.slice(0, -1)) at = (at[name] ??= {}) as Record<string, unknown>
  if (value === undefined) delete at[names.at(-1)!]
  else at[names.at(-1)!] = value
  return document as Json
}

const HARMLESS: readonly (readonly [string, unknown])[] = [
  ['system', 'osun'],
  ['components/new-db', { kind: 'postgres', tier: 'low' }],
  ['facilities/iwo', { name: 'Iwo' }],
  ['facilities/ila/name', 'Ila Orangun'],
  ['components/his-db/owner', 'the database team'],
  ['components/his-db/keep/daily', 8],
  ['components/his-db/keep/pitrDays', 31],
  ['components/his-db/tier', 'critical'],
  ['components/his-db/stream/synchronous', true],
  ['components/his-db/stream/acknowledge', 'repository'],
  ['components/his-db/objectives', { rpoMinutes: 1 }],
  ['components/his-db/compressionLevel', 3],
  ['objectives/rpoMinutes', 4],
  ['objectives/availabilityPercent', 99.99],
  ['objectives/scenarios/host-lost/rtoMinutes', 20],
  ['objectives/scenarios/flood', { rtoMinutes: 20 }],
]

const WEAKENING: readonly (readonly [string, unknown])[] = [
  ['system', 'other'],
  ['state', '/tmp/state'],
  ['repository/storages/0/path', '/elsewhere'],
  ['repository/key/passphrase', 'env:OTHER'],
  ['components/his-db', undefined],
  ['facilities/ede', undefined],
  ['objectives', undefined],
  ['objectives/rpoMinutes', 6],
  ['objectives/rpoMinutes', undefined],
  ['objectives/availabilityPercent', 99],
  ['objectives/scenarios', undefined],
  ['objectives/scenarios/host-lost/rtoMinutes', 31],
  ['components/his-db/tier', 'medium'],
  ['components/his-db/connection', 'env:OTHER'],
  ['components/his-db/dataDirectory', '/other'],
  ['components/his-db/keep/daily', 6],
  ['components/his-db/keep/daily', 0],
  ['components/his-db/keep/pitrDays', undefined],
  ['components/his-db/keep', undefined],
  ['components/his-db/schedules/backup', 'never'],
  ['components/his-db/schedules/backup', { after: '5 h' }],
  ['components/his-db/schedules', undefined],
  ['components/his-db/facilities', ['ila']],
  ['components/his-db/facilities', undefined],
  ['components/his-db/stream/slot', 'other'],
  ['components/his-db/stream/hosts', ['db2']],
  ['components/his-db/stream', undefined],
  ['components/his-db/timeZone', 'Africa/Lagos'],
  ['components/his-db/binaries', '/tmp/pg'],
  ['timeZone', 'Africa/Lagos'],
  ['something-new', 1],
]

test('what only adds waits for nobody', () => {
  for (const [path, value] of HARMLESS) assert.deepEqual(weakenings(BEFORE, withValue(path, value)), [], path)
})

test('what takes away, moves or redirects is named with its place, and so is what is not known', () => {
  for (const [path, value] of WEAKENING) {
    const found = weakenings(BEFORE, withValue(path, value))
    assert.equal(found.length, 1, `${path}: ${JSON.stringify(found)}`)
    const [asked, named] = [path.replaceAll('/', '.'), found[0]!.path]
    assert(asked.startsWith(named) || named.startsWith(asked), `${asked}: ${named}`)
  }
})

test('what was strengthened may not be taken back alone', () => {
  for (const [path, value] of HARMLESS.filter(([each]) => !/system|name|owner|compressionLevel/.test(each))) {
    assert.notDeepEqual(weakenings(withValue(path, value), BEFORE), [], path)
  }
})
