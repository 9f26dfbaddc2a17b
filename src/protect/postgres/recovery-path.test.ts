import assert from 'node:assert/strict'
import test from 'node:test'
import type { BackupManifest } from '../../repository/backups.ts'
import type { Branch } from '../../repository/wal-branch.ts'
import { lineFrom, lineToTimeline, newestLine, switchLsn } from './recovery-path.ts'

function branch(timeline: number, history: string, ordinal = 0, createdAt = '2026-11-21T00:00:00Z'): Branch {
  const name = `${timeline}-${ordinal}-${history.length}`
  const path = { component: 'c', incarnation: 'i', branch: name }
  return {
    path,
    head: { timeline, history, ordinal, systemIdentifier: '1', major: 18, segmentSize: 1 << 24, firstLsn: 0n, createdAt },
  }
}

function backup(on: Branch, stopLsn: bigint): BackupManifest {
  return { branch: on.path.branch, stopLsn } as BackupManifest
}

const one = branch(1, '')
const two = branch(2, '1\t0/5000000\tno recovery target specified\n')
const three = branch(3, `${two.head.history}2\t0/9000000\tno recovery target specified\n`)
/** Another timeline 2, abandoned: three does not descend from it. */
const other = branch(2, '1\t0/3000000\tbefore 2026-11-20\n')

test('the newest line is that of the greatest timeline, through its own ancestors', () => {
  assert.deepEqual(newestLine([other, three, one, two]), [one, two, three])
  assert.deepEqual(newestLine([one]), [one])
  assert.equal(newestLine([]), undefined)
})

test('of a timeline that was gone twice the later way is the newest', () => {
  const again = branch(1, '', 1)
  assert.deepEqual(newestLine([one, again]), [again])
})

test('of two histories of one timeline the one that was begun last is the newest, however often the other was rolled back', () => {
  const rolledBack = branch(2, other.head.history, 1, '2026-11-22T00:00:00Z')
  const later = branch(2, two.head.history, 0, '2026-11-23T00:00:00Z')
  assert.deepEqual(newestLine([one, other, rolledBack, later]), [one, later])
})

test('a backup that ends before a timeline left its own leads onto it', () => {
  const line = [one, two, three]
  assert.equal(switchLsn(two, one), 0x5000000n)
  assert.deepEqual(lineFrom(line, backup(one, 0x4000000n)), line)
  assert.deepEqual(lineFrom(line, backup(one, 0x5000000n)), line)
  assert.deepEqual(lineFrom(line, backup(two, 0x8000000n)), [two, three])
})

test('a backup beyond the switch, or on another branch, does not lie on the line', () => {
  const line = [one, two, three]
  assert.equal(lineFrom(line, backup(one, 0x5000001n)), undefined)
  assert.equal(lineFrom(line, backup(other, 0x3000001n)), undefined)
})

test('the line to a timeline ends there, and follows the later way where it was gone twice', () => {
  const again = branch(2, two.head.history, 1)
  assert.deepEqual(lineToTimeline([one, two, three], 2), [one, two])
  assert.deepEqual(lineToTimeline([one, two, again, three], 2), [one, again])
  assert.equal(lineToTimeline([one, two, three], 4), undefined)
})
