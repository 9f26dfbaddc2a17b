import { hostname, userInfo } from 'node:os'
import { configuredComponent, openConfigured, resolveComponent } from '../config/open.ts'
import type { ComponentConfiguration, Configuration } from '../config/configuration.ts'
import { Failure } from '../errors.ts'
import { drill, type DrillOptions } from '../recovery/drill/drill.ts'
import { TURNS } from '../recovery/drill/drill-target.ts'
import type { StoredRecord } from '../recovery/evidence/chain.ts'
import { resolveObjectives } from '../recovery/objectives.ts'
import type { Repository } from '../repository/repository.ts'
import { notingDamage } from './keep-verdict.ts'
import { formatDuration, formatFields, formatTime } from './output.ts'
import { plainLines } from './plain-text.ts'
import { restoreTarget, TARGETS } from './restore-request.ts'
import { copyContext } from './scratch-place.ts'
import { optionalText, type Context, type Given, type Verb } from './verb.ts'

/** Rehearses the recovery of a component, or of all: exit status 0 only where each was verified. */
export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const repository = await openConfigured(configuration, context.warn)
  const components = chosenComponents(configuration, given)
  const records: StoredRecord[] = []
  for (const component of components) records.push(await drillOne(context, given, { configuration, repository, component }))
  const documents = records.map(({ digest, predicate }) => ({ digest, ...predicate }))
  const verified = records.every(({ predicate }) => 'verdict' in predicate && predicate.verdict === 'verified')
  return {
    json: given.options.system === true ? documents : documents[0],
    text: plainLines(records.map(describe).join('\n\n')),
    exitStatus: verified ? 0 : 1,
  }
}

function chosenComponents(configuration: Configuration, given: Given): readonly ComponentConfiguration[] {
  const [name] = given.args
  if (given.options.system !== true) return [configuredComponent(configuration, name)]
  if (name === undefined) return configuration.components
  throw new Failure('ARGUMENTS_INVALID', `--system drills every component, and "${name}" was given`, { hint: 'leave one out' })
}

async function drillOne(
  context: Context,
  given: Given,
  {
    configuration,
    repository,
    component,
  }: { configuration: Configuration; repository: Repository; component: ComponentConfiguration },
): Promise<StoredRecord> {
  const target = drillTarget(given)
  const options: Omit<DrillOptions, 'onDamagedPack'> = {
    repository,
    component,
    system: configuration.system,
    facilities: component.facilities ?? Object.keys(configuration.facilities ?? {}),
    objectives: resolveObjectives(configuration, component),
    checks: component.checks,
    database: await databaseOf(component),
    ...(target === undefined ? {} : { target }),
    startedBy: optionalText(given, 'startedBy') ?? `account ${userInfo().username} of ${hostname()}`,
    validDays: component.drills.validDays,
    limitMinutes: component.drills.minutes,
    memoryMegabytes: component.drills.memoryMegabytes,
    diskMegabytes: component.drills.diskMegabytes,
    ...(await copyContext(context, given, { configuration, component })),
  }
  return await notingDamage(context, repository, async (onDamagedPack) => drill({ ...options, onDamagedPack }))
}

/** Undefined: the next in turn. */
function drillTarget(given: Given): DrillOptions['target'] {
  const named = optionalText(given, 'target')
  const isGiven = [...TARGETS, 'backup'].some((name) => given.options[name] !== undefined)
  if (given.options.backup !== undefined && TARGETS.some((name) => given.options[name] !== undefined))
    throw new Failure('ARGUMENTS_INVALID', 'a drill chooses the backup for a moment itself', { hint: 'leave --backup out' })
  if (named === undefined) return isGiven ? restoreTarget(given) : undefined
  if (isGiven) throw new Failure('ARGUMENTS_INVALID', 'two targets were given', { hint: 'leave one out' })
  const turn = TURNS.find((each) => each === named)
  if (turn !== undefined) return turn
  throw new Failure('ARGUMENTS_INVALID', `--target "${named}" is none of ${TURNS.join(', ')}`, {
    hint: 'leave it out for the next in turn',
  })
}

/** Where queries of the configuration are asked. A secret that is not on this machine keeps nothing back. */
async function databaseOf(component: ComponentConfiguration): Promise<string> {
  try {
    const { connection } = await resolveComponent(component)
    const { pathname, username } = new URL(connection.reveal().toString('utf8').replace('@/', '@localhost/'))
    return decodeURIComponent(pathname.slice(1)) || decodeURIComponent(username) || 'postgres'
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return 'postgres'
  }
}

function describe({ sequence, predicate }: StoredRecord): string {
  if (!('verdict' in predicate)) return ''
  const { recoveryPoint: point, measured, checks } = predicate
  const figure = (name: 'rtoSeconds' | 'rpoSeconds') => {
    const value = measured[name]
    return value === null ? `not measured: ${measured.why[name] ?? 'not known'}` : formatDuration(1000 * value)
  }
  const parts = Object.entries(measured.rtoParts).map(([name, value]) => `${name} ${formatDuration(1000 * value)}`)
  const turn = point.turn === null ? '' : ` (in turn: ${point.turn})`
  const fields = [
    ['drill', `of "${predicate.component}", record ${sequence} of the evidence`],
    ['restored to', `${point.target}${turn}, from backup ${point.backup}`],
    ['reached', point.lsn === null ? 'not reached' : `${point.lsn} on timeline ${String(point.timeline)}`],
    ['RTO', `${figure('rtoSeconds')}${parts.length === 0 ? '' : ` (${parts.join(', ')})`}`],
    ['RPO', figure('rpoSeconds')],
    ['left behind', predicate.leftovers.removed ? 'nothing' : predicate.leftovers.seen],
    ['verdict', `${predicate.verdict}${predicate.verdict === 'verified' ? `, until ${formatTime(predicate.expires)}` : ''}`],
    ['why', predicate.why],
  ] as const
  const lines = checks.map(({ name, verdict, found, seconds }) => {
    const took = verdict === 'skipped' ? '' : ` (${formatDuration(1000 * seconds)})`
    return `  ${verdict.padEnd(10)}  ${name}: ${found}${took}`
  })
  return [formatFields(fields), ...(lines.length === 0 ? [] : ['checks:', ...lines])].join('\n')
}
