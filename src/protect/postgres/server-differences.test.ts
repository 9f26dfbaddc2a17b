import assert from 'node:assert/strict'
import test from 'node:test'
import type { BackupManifest } from '../../repository/backups.ts'
import { compareServer } from './server-differences.ts'

const recorded = { version: '15.20 (Debian 15.20-1)', major: 15, catalogVersion: 202209061 } as BackupManifest['server']
const installed = (version: string) => ({ major: 15, binDirectory: '/bin', version })

test('the same programs are no difference, however the distribution names its build', () => {
  assert.deepEqual(compareServer(recorded, { installation: installed('15.20'), catalogVersion: 202209061 }), [])
  assert.deepEqual(compareServer(recorded, { installation: installed('15.20'), catalogVersion: undefined }), [])
})

test('programs that are missing, of another catalog, or older are told', () => {
  const whats = (host: Parameters<typeof compareServer>[1]) =>
    compareServer(recorded, host).map(({ what, found, means }) => [what, found, means.split(':')[0]])
  assert.deepEqual(whats({ installation: undefined, catalogVersion: undefined })[0]!.slice(0, 2), [
    'major version',
    'not installed',
  ])
  assert.deepEqual(whats({ installation: installed('15.20'), catalogVersion: 202209060 }), [
    ['catalog version', '202209060', 'these programs refuse the cluster'],
  ])
  assert.deepEqual(whats({ installation: installed('15.9'), catalogVersion: 202209061 }), [
    ['minor version', '15.9', 'older programs than those that wrote it'],
  ])
  assert.deepEqual(whats({ installation: installed('15.21'), catalogVersion: 202209061 }), [
    ['minor version', '15.21', 'newer programs'],
  ])
})
