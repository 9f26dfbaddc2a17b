import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { ChecksSettings } from '../../protect/postgres/content/checks-schema.ts'
import { newestReachable } from '../../protect/postgres/content/baseline.ts'
import { contentChecks } from '../../protect/postgres/content/content-checks.ts'
import type { RecoveryTarget } from '../../protect/postgres/recovery-target.ts'
import { readWindows } from '../../protect/postgres/read-windows.ts'
import type { RestoreWindow } from '../../protect/postgres/windows.ts'
import { microsToMs } from '../../postgres/timestamp.ts'
import { proveByRestore, type Proof, type VerifyByRestoreOptions } from '../../protect/postgres/verify.ts'
import type { Repository } from '../../repository/repository.ts'
import { putVerdict } from '../../repository/verdicts.ts'
import { appendRecord, recordsBackwards, type StoredRecord } from '../evidence/chain.ts'
import { putDetails } from '../evidence/details.ts'
import type { Objectives } from '../objectives.ts'
import { baselineTarget, isReachable, nextTurn, targetOf, type ChosenTarget, type Turn } from './drill-target.ts'
import { drillRecord, unprovenRecord, type DrillFacts } from './drill-record.ts'

// A rehearsal of a recovery (docs/drills.md): restored, judged, measured, taken away, signed.

/** So many records are looked through for the last drill of the component. */
const RECORDS_LOOKED_AT = 500

export interface DrillOptions extends Omit<VerifyByRestoreOptions, 'target' | 'content' | 'askedMs'> {
  readonly repository: Repository
  readonly system: string
  readonly facilities: readonly string[]
  readonly objectives: Objectives
  readonly checks: ChecksSettings
  /** Where queries are asked, unless they say otherwise. */
  readonly database: string
  /** A target; or whose turn it is to be; by default the next one. */
  readonly target?: RecoveryTarget | Turn | undefined
  readonly startedBy: string
  readonly validDays: number
  readonly limitMinutes: number
  readonly clock: Clock
}

/**
 * Makes one drill and leaves its record. What keeps it from being made at all (no backup, no programs, no room) leaves a record as well: *not proven*, with the reason. Thrown is only what keeps
 * the record from being kept (what the storage throws, OBJECT_DAMAGED of the newest record), and INTERRUPTED.
 */
export async function drill(options: DrillOptions): Promise<StoredRecord> {
  const { repository, system, clock, signal } = options
  const beganMs = clock.now()
  const facts = await factsOf(options, beganMs)
  const { proof, failure } = await attempt(options, facts)
  signal.throwIfAborted()
  const appending = { repository, system, clock, signal }
  if (proof === undefined)
    return await appendRecord(appending, unprovenRecord(facts, failure, clock.now()), subjectOf(facts, undefined))
  // What judges the backup is kept first: a record that cannot be added leaves it judged all the same.
  await putVerdict(repository, proof.verdict, signal)
  const details = await putDetails(
    repository,
    proof.details.map(({ name, said, findings }) => ({ name, said, findings: JSON.parse(JSON.stringify(findings)) as never })),
    { signal },
  )
  return await appendRecord(appending, drillRecord(facts, proof, details), subjectOf(facts, proof))
}

type Attempt = { readonly proof: Proof; readonly failure?: undefined } | { readonly proof?: undefined; readonly failure: Failure }

async function attempt(options: DrillOptions, facts: DrillFacts): Promise<Attempt> {
  const { checks, database, repository, limitMinutes } = options
  const limit = AbortSignal.timeout(limitMinutes * 60_000)
  const content = contentChecks(checks, {
    database,
    repository,
    component: options.component.name,
    facilities: options.facilities,
    onBeat: (at) => {
      facts.heartbeat = at
    },
  })
  try {
    const { target, askedMs } = facts.chosen
    const signal = AbortSignal.any([options.signal, limit])
    return { proof: await proveByRestore({ ...options, signal, target, content, askedMs: askedMs ?? latestOf(facts) }) }
  } catch (error) {
    options.signal.throwIfAborted()
    if (limit.aborted) return { failure: new Failure('NOT_VERIFIED', `it took longer than ${limitMinutes} minutes, its limit`) }
    if (error instanceof Failure) return { failure: error }
    throw error
  }
}

/** Of the latest moment that is that of the fault, which in a drill is its beginning. */
function latestOf({ chosen, beganMs }: DrillFacts): number | null {
  return chosen.target.kind === 'latest' ? beganMs : null
}

async function factsOf(options: DrillOptions, beganMs: number): Promise<DrillFacts> {
  const { component, facilities, objectives, startedBy, validDays } = options
  return {
    component: component.name,
    facilities,
    objectives,
    startedBy,
    validDays,
    node: hostname(),
    beganMs,
    chosen: await choose(options),
    heartbeat: undefined,
  }
}

async function choose(options: DrillOptions): Promise<ChosenTarget> {
  const { target, repository, component, stateDirectory, signal } = options
  if (typeof target === 'object') {
    const askedMs = target.kind === 'time' ? microsToMs(target.micros) : null
    return { target, turn: null, askedMs }
  }
  const turn = target ?? nextTurn(await lastTurn(repository, component.name, signal))
  if (turn === 'latest') return targetOf(turn, [])
  let windows: readonly RestoreWindow[]
  try {
    windows = (await readWindows({ repository, component: component.name, stateDirectory, signal })).windows
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof Failure)) throw error
    // What cannot be read is for the restore to say, in a record: and the next turn comes.
    return { target: { kind: 'latest' }, turn, askedMs: null }
  }
  if (turn !== 'baseline') return targetOf(turn, windows)
  const moment = await newestReachable(repository, component.name, (each) => isReachable(each, windows), { signal })
  if (moment !== undefined) return baselineTarget(moment)
  if (target === undefined) return targetOf('latest', [])
  throw new Failure('TARGET_OUTSIDE_WINDOW', `no baseline of "${component.name}" can be recovered to`, {
    hint: `take one ("resus baseline ${component.name}"), and let WAL behind it come into the repository`,
  })
}

async function lastTurn(repository: Repository, component: string, signal: AbortSignal): Promise<string | null> {
  let looked = 0
  for await (const { predicate } of recordsBackwards(repository, () => undefined, { signal })) {
    if (predicate.kind === 'drill' && predicate.component === component && predicate.recoveryPoint.turn !== null)
      return predicate.recoveryPoint.turn
    looked += 1
    if (looked === RECORDS_LOOKED_AT) break
  }
  return null
}

/** What the record is about: the backup by what it is made of. */
function subjectOf({ component, chosen }: DrillFacts, proof: Proof | undefined) {
  const backup = proof?.verdict.backup ?? (chosen.target.kind === 'backup' ? chosen.target.backup : 'none')
  const fingerprint = proof?.verdict.fingerprint ?? null
  // A statement has a digest of its subject: without a backup, that of its name.
  const sha256 = fingerprint ?? createHash('sha256').update(`${component}/${backup}`).digest('hex')
  return [{ name: `${component}/${backup}`, digest: { sha256 } }]
}
