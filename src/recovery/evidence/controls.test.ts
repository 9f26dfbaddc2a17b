import assert from 'node:assert/strict'
import test from 'node:test'
import { CONTROLS, judgeControls, type ControlFacts, type ControlRun } from './controls.ts'

const NOW = Date.UTC(2026, 10, 22)
const DAY_MS = 24 * 3_600_000

function run(more: Partial<ControlRun> = {}): ControlRun {
  const figures = { rtoSeconds: 60, rpoSeconds: 1, rtoMinutes: 15, rpoMinutes: 5 }
  return {
    sequence: 1,
    component: 'his-db',
    madeAt: new Date(NOW - DAY_MS).toISOString(),
    verdict: 'verified',
    isLatest: true,
    ...figures,
    ...more,
  }
}

function states(facts: Partial<ControlFacts> = {}): Record<string, string> {
  const all = { components: ['his-db'], runs: [run()], accepted: new Set([1]), overdueActions: 0, nowMs: NOW, ...facts }
  return Object.fromEntries(judgeControls(all).map(({ id, state, why }) => [id, state === 'not met' ? `not met: ${why}` : state]))
}

test('what a verified, certified drill shows is met; what no record shows is never', () => {
  const found = states()
  assert.deepEqual(
    Object.entries(found)
      .filter(([, state]) => state === 'not measured')
      .map(([id]) => id),
    ['164.308(a)(7)(ii)(B)', '164.308(a)(7)(ii)(C)', '164.312(a)(2)(ii)', '164.316(b)(2)(i)', '3.5'],
  )
  assert.equal(Object.values(found).filter((state) => state === 'met').length, CONTROLS.length - 5)
})

test('one component without proof, an old proof, no certification, a missed objective, an overdue action: each is named', () => {
  assert.match(states({ components: ['his-db', 'lab-db'] })['A1.2']!, /not met: nothing of "lab-db"/)
  const old = run({ madeAt: new Date(NOW - 100 * DAY_MS).toISOString() })
  assert.match(states({ runs: [old] })['A.8.13']!, /within 92 days/)
  assert.match(states({ accepted: new Set() })['8.5']!, /accepted no record/)
  assert.match(states({ runs: [run({ rtoSeconds: 1000 })] })['A1.3']!, /was 1000 s, agreed were 900 s/)
  assert.match(states({ runs: [run({ rpoSeconds: null })] })['A.5.30']!, /RPO of "his-db" was not measured/)
  // The oldest backup is quick to restore, and says nothing of the newest moment; nor does what was verified before the last one failed.
  assert.match(states({ runs: [run({ isLatest: false })] })['A1.3']!, /not measured by the last drill/)
  const failed = run({ sequence: 2, verdict: 'failed', rtoSeconds: null })
  assert.match(states({ runs: [run(), failed] })['A1.3']!, /not measured by the last drill/)
  assert.match(states({ overdueActions: 2 })['8.5']!, /2 corrective actions/)
  assert.match(states({ runs: [run({ verdict: 'not proven' })] })['RC.RP-03']!, /within 7 days/)
  assert.match(states({ components: [] })['A1.2']!, /no component/)
})
