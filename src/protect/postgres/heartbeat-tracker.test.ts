import assert from 'node:assert/strict'
import test from 'node:test'
import type { Beat } from './heartbeat-session.ts'
import { HeartbeatTracker, type Exposure, type WalLine } from './heartbeat-tracker.ts'

const SYSTEM = '7300000000000000001'
const START_MS = Date.parse('2026-06-10T12:00:00Z')
const first: WalLine = { systemIdentifier: SYSTEM, timeline: 1, ancestors: [] }
/** Promoted at LSN 5000. */
const second: WalLine = { systemIdentifier: SYSTEM, timeline: 2, ancestors: [{ timeline: 1, endLsn: 5000n, reason: 'promoted' }] }

/** The beat of a second: its LSN is a thousand times that. */
function beatOf(atSecond: number, more: Partial<Beat> = {}): Beat {
  const ms = START_MS + atSecond * 1000
  return {
    systemIdentifier: SYSTEM,
    timeline: 1,
    lsn: BigInt(atSecond) * 1000n,
    sequence: atSecond,
    at: new Date(ms),
    sentMs: ms,
    ...more,
  }
}

function tracked(...given: Beat[]): HeartbeatTracker {
  const tracker = new HeartbeatTracker()
  for (const beat of given) tracker.noteBeat(beat)
  return tracker
}

function beats(from: number, to: number, more: Partial<Beat> = {}): Beat[] {
  return Array.from({ length: to - from + 1 }, (_, index) => beatOf(from + index, more))
}

function secondsOf(exposure: Exposure): number | string {
  return exposure.kind === 'measured' ? exposure.seconds : exposure.kind
}

function repositoryAt(tracker: HeartbeatTracker, atSecond: number): number | string {
  return secondsOf(tracker.exposures(START_MS + atSecond * 1000).repository)
}

test('what would be lost is the time since the newest beat that is stored, and the spool has more than the repository', () => {
  const tracker = tracked(...beats(1, 10))
  tracker.noteArchived(first, 4999n)
  tracker.noteAcknowledged(first, 9000n)
  const { repository, spool, beating, newest } = tracker.exposures(START_MS + 10_500)
  assert.deepEqual([secondsOf(repository), secondsOf(spool), beating, newest?.sequence], [6.5, 1.5, true, 10])
  assert.equal(repository.kind === 'measured' && repository.beat.sequence, 4)
  // A position that is told late takes nothing back.
  tracker.noteAcknowledged(first, 2000n)
  assert.equal(secondsOf(tracker.exposures(START_MS + 10_500).spool), 1.5)
})

test('without a beat, or one that is known to be stored, nothing is proven, but that it is no less than so much', () => {
  const tracker = new HeartbeatTracker()
  tracker.noteArchived(first, 9_000_000n)
  assert.equal(tracker.exposures(START_MS).repository.kind, 'not proven')
  for (const beat of beats(1, 60)) tracker.noteBeat(beat)
  const { repository, beating } = tracker.exposures(START_MS + 75_000)
  // The position was told before the beats: it may be another cluster's.
  assert.deepEqual(repository, {
    kind: 'not proven',
    why: 'no heartbeat is known to be in the repository yet',
    atLeastSeconds: 74,
  })
  assert.equal(beating, false)
})

test('beats of the timeline before a promotion stay safe, those that it lost are lost', () => {
  const tracker = tracked(...beats(1, 8))
  tracker.noteArchived(first, 7000n)
  assert.equal(repositoryAt(tracker, 8), 1)
  // Promoted without what came behind 5000; the new primary beats on.
  for (const beat of beats(9, 12, { timeline: 2 })) tracker.noteBeat(beat)
  tracker.noteArchived(second, 5500n)
  assert.equal(repositoryAt(tracker, 12), 7)
  tracker.noteArchived(second, 11_000n)
  assert.equal(repositoryAt(tracker, 12), 1)
  // The old primary is back and takes beats: they are nobody's.
  tracker.noteBeat(beatOf(13, { lsn: 900_000n }))
  assert.equal(tracker.exposures(START_MS + 13_000).newest?.sequence, 12)
})

test('beats of a timeline that the stream has not come to yet are kept', () => {
  const tracker = tracked(...beats(1, 4), ...beats(5, 8, { timeline: 2 }))
  tracker.noteArchived(first, 4500n)
  assert.equal(repositoryAt(tracker, 8), 4)
  tracker.noteArchived(second, 7000n)
  assert.equal(repositoryAt(tracker, 8), 1)
})

test('a cluster that was set back on the same timeline counts from there', () => {
  const tracker = tracked(...beats(1, 10))
  tracker.noteArchived(first, 10_000n)
  for (let each = 11; each <= 13; each += 1) tracker.noteBeat(beatOf(each, { lsn: BigInt(each - 8) * 1000n + 1n }))
  assert.equal(repositoryAt(tracker, 13), 10)
  tracker.noteArchived(first, 5001n)
  assert.equal(repositoryAt(tracker, 13), 0)
})

test('a clock that jumps, the server’s or ours, forwards or back, is not taken for time that passed', () => {
  const hour = 3_600_000
  for (const jump of [hour, -hour]) {
    const server = (beat: Beat): Beat => ({ ...beat, at: new Date(beat.at.getTime() + jump) })
    const ours = (beat: Beat): Beat => ({ ...beat, sentMs: beat.sentMs + jump })
    const both = (beat: Beat): Beat => ours(server(beat))
    for (const [jumped, name] of [
      [server, 'server'],
      [ours, 'ours'],
    ] as const) {
      const tracker = tracked(...beats(1, 5))
      tracker.noteArchived(first, 5000n)
      for (const beat of beats(6, 9)) tracker.noteBeat(jumped(beat))
      const nowMs = START_MS + 9000 + (jumped === ours ? jump : 0)
      assert.equal(secondsOf(tracker.exposures(nowMs).repository), 4, `${name} by ${jump}`)
    }
    // An hour in which the server was away is an hour.
    const tracker = tracked(...beats(1, 5))
    tracker.noteArchived(first, 5000n)
    tracker.noteBeat(both(beatOf(6)))
    assert.equal(secondsOf(tracker.exposures(START_MS + 6000 + jump).repository), jump > 0 ? 3601 : 0)
  }
})

test('behind a gap nothing counts, until a backup is begun there', () => {
  const tracker = tracked(...beats(1, 10))
  tracker.noteArchived(first, 4000n)
  tracker.noteGap(first, { from: 4500n, to: 7500n })
  tracker.noteArchived(first, 10_000n)
  assert.equal(repositoryAt(tracker, 10), 6)
  tracker.noteBackup(first, 6000n)
  tracker.noteArchived(first, 10_000n)
  assert.equal(repositoryAt(tracker, 10), 6)
  for (const beat of beats(11, 12, { timeline: 2 })) tracker.noteBeat(beat)
  // A line that left before the gap has none.
  const before: WalLine = { ...second, ancestors: [{ timeline: 1, endLsn: 4400n, reason: '' }] }
  tracker.noteBackup({ ...first, timeline: 7 }, 9000n)
  const aside = tracked(...beats(1, 4), ...beats(11, 12, { timeline: 2 }))
  aside.noteGap(first, { from: 4500n, to: 7500n })
  aside.noteArchived(before, 12_000n)
  assert.equal(repositoryAt(aside, 12), 0)
  tracker.noteBackup(first, 7500n)
  tracker.noteArchived(first, 10_000n)
  assert.equal(repositoryAt(tracker, 12), 2)
})

test('a storage that is away for a month is told to within a hundredth, from a bounded number of beats', () => {
  const every = 3
  const end = 30 * 86_400
  const tracker = new HeartbeatTracker()
  for (let at = 1; at <= end; at += every) tracker.noteBeat(beatOf(at))
  for (const behind of [20 * 86_400, 86_400, 3600, 20]) {
    tracker.noteArchived(first, BigInt(end - behind) * 1000n)
    const found = repositoryAt(tracker, end)
    assert.ok(typeof found === 'number' && found >= behind && found <= behind * 1.011 + 2 * every, `${behind}: ${found}`)
  }
  assert.ok(tracker.held < 4096 + 256, `${tracker.held} are held`)
})
