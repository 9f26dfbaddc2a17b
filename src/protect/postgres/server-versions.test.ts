import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareVersions, preloadedLibraries, type HereVersions, type RecordedServer } from './server-versions.ts'

function database(name: string, collate: string, extensions: [string, string][] = []) {
  const found = extensions.map(([extension, version]) => ({ name: extension, version }))
  return { name, provider: 'c', collate, collationVersion: '2.31', actualVersion: '2.31', extensions: found }
}

const RECORDED: RecordedServer = {
  version: '15.8',
  major: 15,
  systemIdentifier: '1',
  catalogVersion: 202209061,
  controlVersion: 1300,
  segmentSize: 16_777_216,
  dataChecksums: true,
  dataDirectory: '/d',
  encoding: 'UTF8',
  libc: '2.31',
  collationVersions: [],
  preloadLibraries: 'pg_stat_statements, "$libdir/his_audit.so"',
  settings: {},
  commandLine: {},
  versions: {
    glibc: '2.31',
    icu: '67',
    icuCollations: '153.14',
    sessionPreloadLibraries: 'auto_explain',
    localPreloadLibraries: '',
    databases: [
      database('his', 'en_US.UTF-8', [['citext', '1.6']]),
      database('lab', 'C.UTF-8', [
        ['citext', '1.6'],
        ['postgis', '3.1'],
      ]),
    ],
  },
}
const HERE: HereVersions = {
  version: '15.8',
  catalogVersion: 202209061,
  glibc: '2.31',
  icu: '67',
  icuCollations: '153.14',
  libraries: new Set(['pg_stat_statements', 'his_audit', 'auto_explain']),
  extensions: new Map([
    ['citext', '1.6'],
    ['postgis', '3.1'],
  ]),
}

function differences(here: HereVersions): string[] {
  return compareVersions(RECORDED, { ...HERE, ...here }).map(
    ({ what, backup, here: there, consequence }) => `${what} ${backup} ${there}: ${consequence}`,
  )
}

test('a host like the one of the backup has no differences, and neither has one that is not known', () => {
  assert.deepEqual(compareVersions(RECORDED, HERE), [])
  assert.deepEqual(compareVersions(RECORDED, {}), [])
  assert.deepEqual(compareVersions({ ...RECORDED, version: '15.8 (Debian 15.8-0+deb12u1)' }, { version: '15.8' }), [])
  assert.deepEqual(compareVersions({ ...RECORDED, versions: null }, { glibc: '2.36', icu: '72' }), [])
})

test('each difference says what comes of it', () => {
  assert.match(differences({ version: '16.1' })[0]!, /^PostgreSQL 15\.8 16\.1: the cluster does not start: .*PostgreSQL 15$/)
  assert.match(differences({ version: '15.4' })[0]!, /lack what was corrected since/)
  assert.match(differences({ version: '15.10' })[0]!, /it starts; read the release notes/)
  assert.match(differences({ catalogVersion: 1 })[0]!, /^catalog version 202209061 1: these programs refuse/)
  assert.match(differences({ glibc: '2.36' })[0]!, /^glibc 2\.31 2\.36: indexes on text in "his" may be wrong/)
  assert.match(differences({ glibc: null })[0]!, /^glibc 2\.31 none: /)
  assert.match(differences({ icu: '72' })[0]!, /^ICU 67 72: no database sorts by it by default/)
  assert.match(differences({ icuCollations: '153.120' })[0]!, /^collations of ICU 153\.14 153\.120: /)
})

test('libraries and extensions that are missing are named, with what fails without them', () => {
  assert.deepEqual(preloadedLibraries(RECORDED), ['pg_stat_statements', 'his_audit', 'auto_explain'])
  const found = differences({ libraries: new Set(['pg_stat_statements']), extensions: new Map([['citext', '1.7']]) })
  assert.equal(found.length, 4)
  assert.match(found[0]!, /^library "his_audit" loaded not there: the server does not start without it/)
  assert.match(found[1]!, /^library "auto_explain" .*no session can begin without it/)
  assert.match(found[2]!, /^extension "citext" 1\.6 1\.7: .*ALTER EXTENSION citext UPDATE in "his", "lab"$/)
  assert.match(found[3]!, /^extension "postgis" 3\.1 not there: what uses it in "lab" fails/)
})
