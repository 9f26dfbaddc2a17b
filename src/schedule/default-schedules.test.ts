import assert from 'node:assert/strict'
import test from 'node:test'
import { scheduleSchema, schedulesSchema } from '../config/schedule-settings.ts'
import { VERDICT_DAYS } from '../repository/verdicts.ts'
import { DEFAULT_SCHEDULES, resolveSchedules } from './default-schedules.ts'

test('every tier has a valid schedule for each kind, and drills again before a verdict expires', () => {
  for (const [tier, schedules] of Object.entries(DEFAULT_SCHEDULES)) {
    for (const [kind, schedule] of Object.entries(schedules))
      assert.ok(scheduleSchema.safeParse(schedule).success, `${tier} ${kind}`)
    const { drill } = schedules
    assert.ok(typeof drill === 'object' && 'after' in drill && Number.parseInt(drill.after) < VERDICT_DAYS)
  }
})

test('a schedule of the component’s own stands instead of its tier’s, and says so', () => {
  const resolved = resolveSchedules('high', schedulesSchema.parse({ backup: { cron: '0 2 * * *' }, expire: 'never' }))
  assert.deepEqual(
    resolved.map(({ kind, schedule, from }) => [kind, from, schedule]),
    [
      ['backup', 'component', { cron: '0 2 * * *' }],
      ['verify', 'tier', { after: '1 d' }],
      ['prove', 'tier', 'never'],
      ['drill', 'tier', { after: '5 d' }],
      ['baseline', 'tier', 'never'],
      ['expire', 'component', 'never'],
      ['check', 'tier', { after: '1 h' }],
    ],
  )
  assert.ok(!schedulesSchema.safeParse({ backups: 'never' }).success)
})
