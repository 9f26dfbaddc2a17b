import type { FastifyPluginAsync } from 'fastify'
import { Gauge, Registry } from 'prom-client'
import { facilityViews } from '../facilities.ts'
import { objectiveNames } from '../../recovery/objectives.ts'
import { resusVersion } from '../../version.ts'
import type { RouteOptions } from './route-options.ts'

const STATES = { up: 1, degraded: 0.5, unknown: 0, down: 0 } as const

/** What is known now, as metrics. What was not measured has no sample: a figure that stands for "nobody knows" would be believed. */
export const metricsRoutes: FastifyPluginAsync<RouteOptions> = async (server, options) => {
  server.get('/metrics', { config: { action: 'metrics.read' }, schema: { hide: true } }, async (_, reply) => {
    const registry = new Registry()
    collect(registry, options)
    await reply
      .type(registry.contentType)
      .serializer(String)
      .send(await registry.metrics())
  })
}

function collect(registry: Registry, options: RouteOptions): void {
  const gauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Gauge({ name, help, labelNames: [...labelNames], registers: [registry] })
  gauge('resus_info', 'The version of this node', ['version', 'node']).set({ version: resusVersion(), node: options.node }, 1)
  collectComponents(gauge, options)
  collectObjectives(gauge, options)
  collectHealth(gauge, options)
  collectReadiness(gauge, options)
  collectSizes(gauge, options)
  collectFacilities(gauge, options)
  options.tasks.register(registry)
  const nodes = gauge('resus_node_reached_components', 'Components that a node can work on', ['node'])
  for (const { name, reach } of options.board.nodes) nodes.set({ node: name }, reach.filter(({ reached }) => reached).length)
  gauge('resus_configuration_refused', '1 while the files as they are now are not in force', []).set(
    options.refused() === null ? 0 : 1,
  )
  gauge('resus_scheduler_leads', '1 on the node that asks for what is due', []).set(options.scheduler.isLeader ? 1 : 0)
}

type MakeGauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) => Gauge<Label>

function collectComponents(gauge: MakeGauge, { board, control }: RouteOptions): void {
  const labels = ['system', 'component', 'tier'] as const
  const backups = gauge('resus_backups', 'Backups that are kept', labels)
  const age = gauge('resus_backup_age_seconds', 'Age of the newest backup; no RPO', labels)
  const stored = gauge('resus_backup_stored_bytes', 'Stored for all backups of a component, with their own WAL', labels)
  const size = gauge('resus_component_bytes', 'Size of the component at its newest backup', labels)
  const proven = gauge('resus_backup_proven', '1 while the newest backup is proven by a restore', labels)
  const expires = gauge('resus_backup_proof_expires_timestamp_seconds', 'When the newest proof expires', labels)
  const gaps = gauge('resus_wal_gaps', 'Gaps in the stored WAL', labels)
  const receiving = gauge('resus_receiver_up', '1 while WAL is being received', labels)
  const behind = gauge('resus_receiver_behind_bytes', 'WAL that the server has and the receiver has not', labels)
  const reached = gauge('resus_component_reached', '1 while a node can work on it', labels)
  const read = gauge('resus_repository_read_timestamp_seconds', 'When the repository of a component was last read', labels)
  for (const each of board.backupStatus().components) {
    const label = { system: each.system, component: each.component, tier: each.tier }
    const picture = control.catalogue.picture(each.system, each.component)
    const [newest] = picture?.backups ?? []
    backups.set(label, each.backups)
    stored.set(
      label,
      (picture?.backups ?? []).reduce((sum, { bytesStored }) => sum + bytesStored, 0),
    )
    if (newest !== undefined) size.set(label, newest.bytes)
    if (each.newestBackup !== null) age.set(label, each.newestBackup.ageSeconds)
    proven.set(label, each.verdict === 'verified' ? 1 : 0)
    if (each.proven !== null) expires.set(label, Date.parse(each.proven.expires) / 1000)
    if (each.wal !== null) gaps.set(label, each.wal.gaps)
    receiving.set(label, each.receiver.state === 'receiving' ? 1 : 0)
    if (each.receiver.behindBytes !== null) behind.set(label, each.receiver.behindBytes)
    reached.set(label, each.reachedBy.length > 0 ? 1 : 0)
    if (each.asOf !== null) read.set(label, Date.parse(each.asOf) / 1000)
  }
}

function collectObjectives(gauge: MakeGauge, { objectives }: RouteOptions): void {
  const labels = ['system', 'component', 'objective'] as const
  const target = gauge('resus_objective_target', 'What was promised, in the unit of the objective', labels)
  const actual = gauge(
    'resus_objective_actual',
    'What was measured, in the unit of the objective; missing where it was not',
    labels,
  )
  const met = gauge('resus_objective_met', '1 met, 0 broken; missing where it is not proven', labels)
  const rpo = gauge('resus_rpo_seconds', 'What would be lost now, by the heartbeat; missing where it is not proven', [
    'system',
    'component',
    'place',
  ])
  for (const view of objectives.views()) {
    const { system, component } = view
    for (const objective of objectiveNames) {
      const judgement = view.judgements[objective]
      if (judgement === null || judgement.target === null) continue
      const label = { system, component, objective }
      target.set(label, judgement.target)
      if (judgement.actual !== null) actual.set(label, judgement.actual)
      if (judgement.verdict !== 'not proven') met.set(label, judgement.verdict === 'met' ? 1 : 0)
    }
    for (const place of ['repository', 'spool'] as const) {
      const measured = view.rpo[place]
      if (measured.kind === 'measured') rpo.set({ system, component, place }, measured.seconds)
    }
  }
}

function collectReadiness(gauge: MakeGauge, { readiness, control, evidence }: RouteOptions): void {
  const labels = ['system', 'component'] as const
  const score = gauge('resus_readiness', 'How ready it is to be recovered, 0 to 1; healthy is above 0.8', labels)
  const term = gauge('resus_readiness_term', 'What it is made of; missing where it was not measured', [...labels, 'term'])
  const gate = gauge('resus_readiness_gate', '1 holds, 0 does not; missing where nobody can tell', [...labels, 'gate'])
  const rto = gauge('resus_drill_rto_seconds', 'From the fault to the first verified transaction, by the last drill', labels)
  const at = gauge('resus_drill_timestamp_seconds', 'When the last drill was made', labels)
  const verified = gauge('resus_drill_verified', '1 while the last drill was verified and its verdict holds', labels)
  for (const { system, component, ...view } of readiness.views()) {
    const label = { system, component }
    score.set(label, view.score)
    for (const each of view.terms) if (each.value !== null) term.set({ ...label, term: each.name }, each.value)
    for (const each of view.gates) if (each.holds !== null) gate.set({ ...label, gate: each.name }, each.holds ? 1 : 0)
  }
  for (const { system, component } of control.catalogue.pictures()) {
    const label = { system, component: component.name }
    const [last] = evidence.runs(system, component.name) ?? []
    if (last === undefined) continue
    at.set(label, Date.parse(last.madeAt) / 1000)
    verified.set(label, evidence.proven(system, component.name) === undefined ? 0 : 1)
    if (last.measured.rtoSeconds !== null) rto.set(label, last.measured.rtoSeconds)
  }
}

function collectHealth(gauge: MakeGauge, { health }: RouteOptions): void {
  const labels = ['system', 'component', 'thing'] as const
  const up = gauge('resus_watched_up', '1 up, 0.5 slow or short, 0 down or unknown', labels)
  const figure = gauge('resus_watched_figure', 'What was measured of it; its name has the unit', [...labels, 'figure'])
  for (const { system, component, thing, health: each, figures } of health.views()) {
    const label = { system, component: component ?? '', thing }
    up.set(label, STATES[each.state])
    for (const [name, value] of Object.entries(figures)) if (value !== null) figure.set({ ...label, figure: name }, value)
  }
}

function collectSizes(gauge: MakeGauge, { sizes }: RouteOptions): void {
  const labels = ['system', 'component'] as const
  const cluster = gauge('resus_component_growth_bytes_per_day', 'How a component grows, by the last 30 days', labels)
  const stored = gauge('resus_backup_stored_growth_bytes_per_day', 'How what is stored of a component grows', labels)
  const days = gauge('resus_storage_days_left', 'Days until nothing is free; missing when it does not shrink', ['system'])
  for (const { system, storage, components } of sizes.views()) {
    if (storage.daysLeft !== null) days.set({ system }, storage.daysLeft)
    for (const { component, cluster: size, stored: kept } of components) {
      if (size.bytesPerDay !== null) cluster.set({ system, component }, size.bytesPerDay)
      if (kept.bytesPerDay !== null) stored.set({ system, component }, kept.bytesPerDay)
    }
  }
}

function collectFacilities(gauge: MakeGauge, { control, board, objectives }: RouteOptions): void {
  const labels = ['system', 'facility', 'name'] as const
  const proven = gauge('resus_facility_proven', '1 while all that holds its data is proven by a restore', labels)
  const components = gauge('resus_facility_components', 'Components that hold its data', labels)
  const rpo = gauge('resus_facility_rpo_seconds', 'What it would lose now; missing where that is not proven', labels)
  const rto = gauge('resus_facility_rto_seconds', 'Its longest proven recovery; missing where one is not proven', labels)
  const own = gauge('resus_facility_own_bytes', 'Size of components that hold its data alone', labels)
  const shared = gauge('resus_facility_shared_bytes', 'Size of components that it shares with others', labels)
  for (const view of facilityViews(control.catalogue, board, objectives.views())) {
    const label = { system: view.system, facility: view.facility, name: view.name }
    proven.set(label, view.verdict === 'verified' ? 1 : 0)
    components.set(label, view.components.length)
    if (view.rpoSeconds !== null) rpo.set(label, view.rpoSeconds)
    if (view.rtoMinutes !== null) rto.set(label, 60 * view.rtoMinutes)
    own.set(label, view.ownBytes)
    shared.set(label, view.sharedBytes)
  }
}
