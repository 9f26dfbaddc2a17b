import { sql } from 'kysely'
import type { z } from 'zod'
import type { HealthDocument, monitorSchema, ObjectivesDocument, statusSchema } from '../../api/status-schemas.ts'
import { DEFINITIONS } from '../../recovery/objectives.ts'
import { HEALTHY_ABOVE, leastReady } from '../../recovery/readiness.ts'
import { resusVersion } from '../../version.ts'
import type { BackupStatus } from '../../api/schemas.ts'
import type { AuditVerification } from '../audit-verification.ts'
import type { View } from '../view.ts'
import type { RouteOptions } from './route-options.ts'

type StatusDocument = z.infer<typeof statusSchema>
type MonitorDocument = z.infer<typeof monitorSchema>
type State = HealthDocument['state']

const WORST: readonly State[] = ['down', 'degraded', 'unknown', 'up']
const MONTH_MS = 30 * 24 * 3600 * 1000

/** What belongs to no component (storages, the server itself) only those see who see everything. */
export function healthDocument({ health, control, audit }: RouteOptions, view: View): HealthDocument {
  const seen = health.views().filter(({ system, component }) => view.sees(system, component))
  const watched = seen.map(({ system, component, thing, health: each, figures }) => ({
    system,
    component,
    thing,
    figures: { ...figures },
    state: each.state,
    since: textOf(each.sinceMs),
    lookedAt: textOf(each.lookedMs),
    answeredAt: each.answeredMs === null ? null : textOf(each.answeredMs),
    why: each.why,
  }))
  return {
    asOf: textOf(control.now),
    state: worst(watched.map(({ state }) => state)),
    audit: view.isWhole ? auditState(audit.verification) : null,
    watched,
  }
}

function auditState({ protection, all }: AuditVerification): NonNullable<HealthDocument['audit']> {
  return { protection, verified: all.map((each) => ({ ...each, problems: [...each.problems] })) }
}

/** Of nothing at all nobody knows how it is. */
function worst(states: readonly State[]): State {
  return WORST.find((state) => states.includes(state)) ?? 'unknown'
}

export function objectivesDocument({ objectives, control }: RouteOptions, view: View): ObjectivesDocument {
  const seen = objectives.views().filter(({ system, component }) => view.sees(system, component))
  return {
    asOf: textOf(control.now),
    definitions: { ...DEFINITIONS },
    components: seen.map(({ system, component, objectives: promised, judgements, rpo }) => ({
      system,
      component,
      tier: promised.tier,
      targets: { ...promised.values },
      remarks: [...promised.remarks],
      judgements: { ...judgements },
      actualRpo: rpo,
    })),
  }
}

export function statusDocument(options: RouteOptions, view: View): StatusDocument {
  const { control, board, objectives, node, refused } = options
  const verdicts = objectives
    .views()
    .filter(({ system, component }) => view.sees(system, component))
    .flatMap(({ judgements }) => Object.values(judgements).flatMap((each) => (each === null ? [] : [each.verdict])))
  const { components } = backupStatusDocument(options, view)
  const least = leastReady(options.readiness.views().filter(({ system, component }) => view.sees(system, component)))
  const count = (wanted: string) => verdicts.filter((verdict) => verdict === wanted).length
  return {
    asOf: textOf(control.now),
    readiness:
      least === undefined
        ? null
        : {
            score: least.score,
            healthyAbove: HEALTHY_ABOVE,
            least: `${least.system}/${least.component}`,
            action: least.action?.what ?? null,
          },
    node,
    version: resusVersion(),
    configuration: { systems: view.systems().length, components: components.length, refused: view.isWhole ? refused() : null },
    nodes: (view.isWhole ? board.nodes : []).map(({ name, reach, renewed_at: renewedAt }) => ({
      name,
      renewedAt: renewedAt?.toISOString() ?? null,
      reached: reach.filter(({ reached }) => reached).length,
      notReached: reach.filter(({ reached }) => !reached).length,
    })),
    authority: options.authority.isGuarded ? 'people' : 'one token',
    health: healthDocument(options, view).state,
    objectives: { met: count('met'), broken: count('broken'), notProven: count('not proven') },
    proven: { components: components.filter(({ verdict }) => verdict === 'verified').length, ofComponents: components.length },
  }
}

export function backupStatusDocument({ board }: RouteOptions, view: View): BackupStatus {
  const { components, ...more } = board.backupStatus()
  return { ...more, components: components.filter(({ system, component }) => view.sees(system, component)) }
}

export async function monitorDocument({ control }: RouteOptions, view: View): Promise<MonitorDocument> {
  const since = new Date(control.now - MONTH_MS)
  const counts = await control.store.sql
    .selectFrom('tasks')
    .select(['system', 'component', 'state', sql<number>`count(*)::int`.as('count')])
    .where('kind', '=', 'backup')
    .where('created_at', '>=', since)
    .groupBy(['system', 'component', 'state'])
    .execute()
  return {
    asOf: textOf(control.now),
    components: view.pictures().map(({ system, component: { name }, backups }) => {
      const [newest] = backups
      const recent = backups.filter(({ finishedAt }) => Date.parse(finishedAt) >= since.getTime())
      const countOf = (state: string) =>
        counts.find((each) => each.system === system && each.component === name && each.state === state)?.count ?? 0
      const [done, failed] = [countOf('done'), countOf('failed')]
      const sum = (all: typeof backups) => all.reduce((total, { bytesStored }) => total + bytesStored, 0)
      return {
        system,
        component: name,
        backups: backups.length,
        newestBackupAgeSeconds:
          newest === undefined ? null : Math.max(0, Math.round((control.now - Date.parse(newest.finishedAt)) / 1000)),
        storedBytes: sum(backups),
        last30Days: { backups: recent.length, storedBytes: sum(recent) },
        tasks30Days: { done, failed, successPercent: done + failed === 0 ? null : (100 * done) / (done + failed) },
      }
    }),
  }
}

function textOf(ms: number): string {
  return new Date(ms).toISOString()
}
