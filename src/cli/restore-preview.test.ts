import assert from 'node:assert/strict'
import test from 'node:test'
import type { RestorePreview } from '../protect/postgres/restore-preview.ts'
import { formatPreview } from './restore-preview.ts'

const PREVIEW: RestorePreview = {
  possible: true,
  problems: [],
  backup: { id: '20261121T030000Z-000abc', type: 'full', stopTime: '2026-11-21T03:00:05.000Z', stopLsn: '0/5000100' },
  target: 'time 2026-11-21T04:00:00.000Z',
  action: 'pause',
  timeline: 2,
  bytesToWrite: 5_000_000,
  filesToWrite: 990,
  bytesFree: 7_000_000_000,
  roomForWalBytes: 268_435_456,
  wal: { fromLsn: '0/5000028', endLsn: '0/7000000', bytes: 33_554_392, segments: 3, lastCommit: '2026-11-21T03:59:00.000Z' },
  loss: {
    acknowledgedLsn: '0/7000100',
    bytesNotReplayed: 256,
    bytesLost: 0,
    secondsBeforeTarget: 60,
    spool: [{ timeline: 2, bytes: 4096, acknowledgedLsn: '0/7000100' }],
    localWal: [{ directory: '/restored/pg_wal', timeline: 2, bytes: 8192, endLsn: '0/7002100' }],
  },
  safetyCopy: { path: '/var/lib/postgresql/restored.before-20261121T030000000Z', bytes: 5 * 1024 ** 2 },
  directory: { path: '/restored', state: 'missing' },
  tablespaces: [{ oid: '16385', source: '/srv/scans', path: '/new', state: 'empty' }],
  settings: { archive_mode: 'off', restore_command: 'x'.repeat(1000) },
  installation: null,
  differences: [{ what: 'PostgreSQL', backup: '18.4', here: 'not installed', consequence: 'it cannot be started here' }],
  notices: ['a notice'],
}

test('a preview says what would be written, replayed, lost and overridden, and where', () => {
  assert.equal(
    formatPreview('his-db', PREVIEW),
    `would restore:    "his-db" from full backup 20261121T030000Z-000abc of 2026-11-21 03:00:05Z
target:           time 2026-11-21T04:00:00.000Z, on timeline 2, then pause
directory:        /restored (missing)
safety copy:      5.2 MB to /var/lib/postgresql/restored.before-20261121T030000000Z first
tablespace 16385: /new (empty; was /srv/scans)
write:            5.0 MB in 990 files; 7.0 GB are free
replay:           33.6 MB of WAL in 3 segments, from 0/5000028 to 0/7000000
last commit:      2026-11-21 03:59:00Z
acknowledged:     up to 0/7000100: 256 B of it are not replayed
quiet:            1 min 0 s between the last commit and the target
spool:            4.1 kB of WAL of timeline 2 in this host's spool, acknowledged up to 0/7000100, would be published
local WAL:        8.2 kB of timeline 2 that only /restored/pg_wal has, up to 0/7002100, would be published
programs:         none of this major version

Settings that are overridden:
  archive_mode = 'off'
  restore_command = '${'x'.repeat(80)} ... (1000 characters; --json has all)'

This host differs from the one that was backed up:
  PostgreSQL: 18.4 there, not installed here (it cannot be started here)

Note:
  a notice

Nothing was touched. Without --preview the restore begins.`,
  )
})

test('a preview of what would be refused says what is in the way', () => {
  const text = formatPreview('his-db', { ...PREVIEW, possible: false, problems: ['the directory holds a cluster'] })
  assert.match(text, /In the way:\n {2}the directory holds a cluster\n\nNothing was touched\. The restore would be refused\.$/)
})
