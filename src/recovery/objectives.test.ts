import assert from 'node:assert/strict'
import test from 'node:test'
import { objectivesSchema } from '../config/objectives-settings.ts'
import { HeartbeatTracker } from '../protect/postgres/heartbeat-tracker.ts'
import { AvailabilityRecord } from './availability.ts'
import { actualRpo, judge, type Actual } from './judgement.ts'
import { DEFINITIONS, resolveObjectives, TIERS } from './objectives.ts'

const NOW = Date.parse('2026-06-10T12:00:00Z')
const RECOVERY = { seconds: 600, at: '2026-06-09T12:00:00Z', expires: '2026-06-16T12:00:00Z', scenario: null }
const NOTHING: Actual = { rpo: { kind: 'not proven', why: 'no heartbeat' }, zeroLoss: null, recovery: null, availability: null }
const critical = resolveObjectives({}, { tier: 'critical' })

function rpo(seconds: number, beating = true): Actual {
  return { ...NOTHING, rpo: { kind: 'measured', seconds, beating, lastBeatAt: '2026-06-10T11:00:00Z' } }
}

test('tiers carry the objectives that the hospital’s rules name', () => {
  assert.deepEqual(
    Object.entries(TIERS).map(([tier, { rtoMinutes, rpoMinutes }]) => `${tier} ${rtoMinutes}/${rpoMinutes}`),
    ['critical 15/5', 'high 60/15', 'medium 240/60', 'low 1440/240'],
  )
  assert.match(DEFINITIONS.backupAge, /never called RPO/)
})

test('the most particular value stands, and says where it is from', () => {
  const system = {
    objectives: objectivesSchema.parse({
      rtoMinutes: 30,
      availabilityPercent: 99.9,
      scenarios: { 'region-lost': { rtoMinutes: 1440 } },
    }),
  }
  const component = {
    tier: 'critical' as const,
    objectives: objectivesSchema.parse({ rtoMinutes: 20, scenarios: { fire: { rpoMinutes: 1 } } }),
  }
  const general = resolveObjectives(system, component)
  assert.deepEqual(general.values, {
    rtoMinutes: { value: 20, from: 'component' },
    rpoMinutes: { value: 5, from: 'tier' },
    maximumTolerableDowntimeMinutes: null,
    availabilityPercent: { value: 99.9, from: 'system' },
  })
  assert.deepEqual(resolveObjectives(system, component, 'region-lost').values.rtoMinutes, {
    value: 1440,
    from: 'system scenario',
  })
  assert.deepEqual(resolveObjectives(system, component, 'fire').values.rpoMinutes, { value: 1, from: 'component scenario' })
  assert.deepEqual(resolveObjectives(system, component, 'unheard-of').values, general.values)
})

test('objectives that contradict each other are remarked on, wrong ones refused', () => {
  const { remarks } = resolveObjectives({ objectives: { maximumTolerableDowntimeMinutes: 10 } }, { tier: 'critical' })
  assert.match(remarks[0]!, /15 min \(from the tier\).*10 min \(from the system\)/)
  for (const wrong of [
    { rtoMinutes: -1 },
    { availabilityPercent: 101 },
    { rto: 5 },
    { rpoMinutes: '5' },
    { scenarios: { Fire: {} } },
  ]) {
    assert.ok(!objectivesSchema.safeParse(wrong).success, JSON.stringify(wrong))
  }
})

test('what was not measured is not proven, and what nobody has promised is not judged', () => {
  const judged = judge(critical, NOTHING, NOW)
  assert.deepEqual(judged.rpoMinutes, { target: 5, actual: null, verdict: 'not proven', why: 'no heartbeat' })
  assert.equal(judged.rtoMinutes?.verdict, 'not proven')
  assert.equal(judged.availabilityPercent, null)
})

test('an RTO is met or broken by a proven recovery only, and only as long as its proof holds', () => {
  const at = (recovery: Actual['recovery'], nowMs = NOW) => judge(critical, { ...NOTHING, recovery }, nowMs).rtoMinutes
  assert.deepEqual([at(RECOVERY)?.verdict, at(RECOVERY)?.actual], ['met', 10])
  assert.equal(at({ ...RECOVERY, seconds: 901 })?.verdict, 'broken')
  assert.equal(at({ ...RECOVERY, seconds: 900 })?.verdict, 'met')
  const expired = at(RECOVERY, Date.parse(RECOVERY.expires))
  assert.deepEqual([expired?.verdict, expired?.actual], ['not proven', null])
  assert.match(expired!.why, /expired/)
  const fire = resolveObjectives({}, { tier: 'critical' }, 'fire')
  assert.equal(judge(fire, { ...NOTHING, recovery: RECOVERY }, NOW).rtoMinutes?.verdict, 'not proven')
  assert.equal(judge(fire, { ...NOTHING, recovery: { ...RECOVERY, scenario: 'fire' } }, NOW).rtoMinutes?.verdict, 'met')
})

test('an RPO is broken only while the heart beats: a server that is down loses nothing more', () => {
  assert.equal(judge(critical, rpo(300), NOW).rpoMinutes?.verdict, 'met')
  assert.deepEqual(judge(critical, rpo(360), NOW).rpoMinutes?.actual, 6)
  assert.equal(judge(critical, rpo(360), NOW).rpoMinutes?.verdict, 'broken')
  assert.equal(judge(critical, rpo(360, false), NOW).rpoMinutes?.verdict, 'not proven')
  assert.equal(judge(critical, rpo(2, false), NOW).rpoMinutes?.verdict, 'met')
  const since = (atLeastSeconds: number, beating: boolean) =>
    judge(critical, { ...NOTHING, rpo: { kind: 'not proven', why: 'none is safe', atLeastSeconds, beating } }, NOW).rpoMinutes
      ?.verdict
  assert.deepEqual([since(301, true), since(300, true), since(301, false)], ['broken', 'not proven', 'not proven'])
  const none = resolveObjectives({}, { tier: 'low', objectives: { rpoMinutes: 0 } })
  assert.equal(judge(none, rpo(0), NOW).rpoMinutes?.verdict, 'not proven')
  const when = (holds: boolean) => judge(none, { ...rpo(2), zeroLoss: { holds, why: 'because' } }, NOW).rpoMinutes
  assert.deepEqual(when(true), { target: 0, actual: 0, verdict: 'met', why: 'because' })
  assert.deepEqual(when(false), {
    target: 0,
    actual: null,
    verdict: 'not proven',
    why: 'because; by the heartbeat 2 s at most',
  })
  const zeroLoss = { holds: true, why: 'because' }
  assert.equal(
    judge(none, { ...rpo(20), zeroLoss }, NOW).rpoMinutes?.verdict,
    'broken',
    'commits may wait, the heartbeat is not safe',
  )
  assert.equal(
    judge(none, { ...rpo(20, false), zeroLoss }, NOW).rpoMinutes?.verdict,
    'met',
    'a server that is down loses nothing more',
  )
  assert.equal(
    judge(none, { ...NOTHING, zeroLoss }, NOW).rpoMinutes?.verdict,
    'not proven',
    'nothing is met that is not measured',
  )
  const gap: Actual = { ...NOTHING, zeroLoss, rpo: { kind: 'not proven', why: 'a gap', atLeastSeconds: 7200, beating: true } }
  assert.equal(judge(none, gap, NOW).rpoMinutes?.verdict, 'broken')
})

const AVAILABILITY = { windowMs: 3_600_000, sampleHoldsMs: 30_000 }

test('time that nobody could tell is not counted as up', () => {
  const record = new AvailabilityRecord(AVAILABILITY)
  assert.equal(record.measure(NOW).percentAtLeast, null)
  for (let at = 0; at <= 60; at += 10) record.note(NOW + at * 1000, 'up')
  // Then nobody looks for two minutes: the last sample holds for half a minute.
  record.note(NOW + 180_000, 'down')
  record.note(NOW + 190_000, 'up')
  const { upSeconds, downSeconds, unknownSeconds, percentAtLeast, percentAtMost } = record.measure(NOW + 200_000)
  assert.deepEqual({ upSeconds, downSeconds, unknownSeconds }, { upSeconds: 100, downSeconds: 10, unknownSeconds: 90 })
  assert.deepEqual([percentAtLeast, percentAtMost], [50, 95])
  const objectives = (percent: number, longest: number) =>
    resolveObjectives({ objectives: { availabilityPercent: percent, maximumTolerableDowntimeMinutes: longest } }, { tier: 'low' })
  const judged = (percent: number, longest: number) => {
    const verdicts = judge(objectives(percent, longest), { ...NOTHING, availability: record.measure(NOW + 200_000) }, NOW)
    return [verdicts.availabilityPercent!.verdict, verdicts.maximumTolerableDowntimeMinutes!.verdict]
  }
  assert.deepEqual(judged(50, 100 / 60), ['met', 'met'])
  assert.deepEqual(judged(90, 99 / 60), ['not proven', 'not proven'])
  assert.deepEqual(judged(96, 9 / 60), ['broken', 'broken'])
})

test('a window slides, a clock that goes back adds nothing, and a later process goes on from what was measured', () => {
  const record = new AvailabilityRecord(AVAILABILITY)
  for (let at = 0; at < 7200; at += 10) record.note(NOW + at * 1000, at < 3600 ? 'down' : 'up')
  record.note(NOW, 'down')
  const { upSeconds, downSeconds, longestDownSeconds } = record.measure(NOW + 7_190_000)
  assert.deepEqual({ upSeconds, downSeconds, longestDownSeconds }, { upSeconds: 3590, downSeconds: 10, longestDownSeconds: 10 })
  const later = new AvailabilityRecord({ ...AVAILABILITY, stretches: record.stretches })
  later.note(NOW + 7_250_000, 'up')
  const measured = later.measure(NOW + 7_260_000)
  assert.deepEqual([measured.unknownSeconds, measured.upSeconds], [60, 3540])
})

test('what a tracker says is judged as it is: the spool may keep what the repository does not', () => {
  const tracker = new HeartbeatTracker()
  const line = { systemIdentifier: '1', timeline: 1, ancestors: [] }
  const judged = (place: 'repository' | 'spool', nowMs: number) => {
    const actual = { ...NOTHING, rpo: actualRpo(tracker.exposures(nowMs), place) }
    return judge(critical, actual, nowMs).rpoMinutes!.verdict
  }
  assert.equal(judged('repository', NOW), 'not proven')
  for (let at = 1; at <= 400; at += 1) {
    const ms = NOW + at * 1000
    tracker.noteBeat({ systemIdentifier: '1', timeline: 1, lsn: BigInt(at), sequence: at, at: new Date(ms), sentMs: ms })
    tracker.noteAcknowledged(line, BigInt(at))
  }
  assert.deepEqual([judged('repository', NOW + 400_000), judged('spool', NOW + 400_000)], ['broken', 'met'])
  // The server is away, and its receiver's host with it: no more is lost than was before.
  assert.equal(judged('repository', NOW + 800_000), 'not proven')
})
