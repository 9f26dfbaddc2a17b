import { Failure } from '../errors.ts'
import { readRecord, recordsBackwards, type StoredRecord } from '../recovery/evidence/chain.ts'
import type { Predicate, RunPredicate } from '../recovery/evidence/record.ts'
import { listRecords } from '../repository/evidence-objects.ts'
import { countChecks } from '../recovery/readiness-input.ts'
import type { Repository } from '../repository/repository.ts'
import type { Catalogue } from './catalogue.ts'

/** So many runs of each component are remembered; older ones are read from the repository when they are asked for. */
const RUNS_MAX = 50
/** So many records are read when a system is first looked at. */
const FIRST_RECORDS_MAX = 5000
/** New records that are read in one look. */
const NEW_RECORDS_MAX = 500

type Action = Extract<Predicate, { kind: 'action' }>
type Certification = Extract<Predicate, { kind: 'certification' }>

/** What of a drill or a recovery is remembered. */
export interface RunSummary extends Pick<
  RunPredicate,
  'kind' | 'component' | 'madeAt' | 'verdict' | 'why' | 'expires' | 'measured' | 'recoveryPoint'
> {
  readonly sequence: number
  readonly digest: string
  readonly leftBehind: boolean
  readonly checks: { readonly verified: number; readonly all: number }
}

interface SystemEvidence {
  newest: { readonly sequence: number; readonly digest: string } | undefined
  /** Newest first, by component. */
  readonly runs: Map<string, RunSummary[]>
  readonly actions: Map<string, Action>
  readonly certified: Map<number, Certification>
  asOf: number
  problem: string | null
  /** What is missing or damaged in the chain, for good. */
  broken: string | null
}

/** What the evidence of each system says, in memory, as of the last look. */
export class EvidenceBook {
  readonly #catalogue: Catalogue
  readonly #now: () => number
  readonly #systems = new Map<string, SystemEvidence>()
  #looking: Promise<void> | undefined

  constructor(options: { readonly catalogue: Catalogue; readonly now: () => number }) {
    this.#catalogue = options.catalogue
    this.#now = options.now
  }

  /** Reads what is new, of every system. One that cannot be read keeps what was known, and says why. Of two looks at once there is one. */
  async look(signal: AbortSignal): Promise<void> {
    this.#looking ??= this.#look(signal).finally(() => (this.#looking = undefined))
    await this.#looking
  }

  async #look(signal: AbortSignal): Promise<void> {
    for (const { system } of this.#catalogue.systems) {
      signal.throwIfAborted()
      const known = this.#systems.get(system) ?? empty()
      try {
        const repository = await this.#catalogue.repositoryOf(system)
        await (known.newest === undefined ? readFirst(known, repository, signal) : readNew(known, repository, signal))
        known.asOf = this.#now()
        known.problem = known.broken
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof Failure)) throw error
        known.problem = error.message
      }
      this.#systems.set(system, known)
    }
  }

  /** Drills and recoveries of a component, newest first. Undefined until its system was looked at. */
  runs(system: string, component: string): readonly RunSummary[] | undefined {
    const known = this.#systems.get(system)
    return known === undefined || known.asOf === 0 ? undefined : (known.runs.get(component) ?? [])
  }

  /** The newest run that was verified and holds now. */
  proven(system: string, component: string): RunSummary | undefined {
    // Where a record is missing or damaged a failure may be what nobody can read.
    if (this.problem(system) !== null) return undefined
    const [newest] = this.runs(system, component) ?? []
    return newest?.verdict === 'verified' && Date.parse(newest.expires) > this.#now() ? newest : undefined
  }

  certification(system: string, sequence: number): Certification | undefined {
    return this.#systems.get(system)?.certified.get(sequence)
  }

  /** Corrective actions that are open. */
  openActions(system: string): readonly Action[] {
    return [...(this.#systems.get(system)?.actions.values() ?? [])].filter(({ state }) => state === 'open')
  }

  /** The last record, and how many there are. */
  head(system: string): { readonly count: number; readonly digest: string } | undefined {
    const newest = this.#systems.get(system)?.newest
    return newest === undefined ? undefined : { count: newest.sequence, digest: newest.digest }
  }

  problem(system: string): string | null {
    return this.#systems.get(system)?.problem ?? null
  }
}

function empty(): SystemEvidence {
  return {
    newest: undefined,
    runs: new Map(),
    actions: new Map(),
    certified: new Map(),
    asOf: 0,
    problem: null,
    broken: null,
  }
}

async function readFirst(known: SystemEvidence, repository: Repository, signal: AbortSignal): Promise<void> {
  const found: StoredRecord[] = []
  let damage: Failure | undefined
  for await (const record of recordsBackwards(repository, (_, failure) => (damage ??= failure), { signal })) {
    found.push(record)
    if (found.length === FIRST_RECORDS_MAX) break
  }
  for (const record of found.toReversed()) note(known, record)
  if (damage !== undefined) known.broken = damage.message
}

/** By their numbers, one behind the other: nothing is listed. */
async function readNew(known: SystemEvidence, repository: Repository, signal: AbortSignal): Promise<void> {
  for (let read = 0; read < NEW_RECORDS_MAX; read += 1) {
    const next = (known.newest?.sequence ?? 0) + 1
    const record = await readRecord(repository, next, { signal }).catch((error: unknown) => {
      if (error instanceof Failure && error.code === 'EVIDENCE_UNKNOWN') return undefined
      throw error
    })
    if (record !== undefined) {
      note(known, record)
      continue
    }
    // What is behind a hole counts as well, and the hole is said.
    const behind = (await listRecords(repository, { signal })).find((sequence) => sequence > next)
    if (behind === undefined) return
    known.broken ??= `record ${next} of the evidence is missing`
    note(known, await readRecord(repository, behind, { signal }))
  }
}

function note(known: SystemEvidence, { sequence, digest, predicate }: StoredRecord): void {
  const before = known.newest
  if (before !== undefined && sequence <= before.sequence) return
  if (before !== undefined && sequence === before.sequence + 1 && predicate.previous !== before.digest)
    known.broken ??= `record ${sequence} of the evidence was signed behind another record than the one before it`
  known.newest = { sequence, digest }
  if (predicate.kind === 'action') known.actions.set(predicate.action, predicate)
  if (predicate.kind === 'certification') known.certified.set(predicate.of.sequence, predicate)
  if (predicate.kind !== 'drill' && predicate.kind !== 'recovery') return
  const { kind, component, madeAt, verdict, why, expires, measured, recoveryPoint, leftovers } = predicate
  const summary = { kind, component, madeAt, verdict, why, expires, measured, recoveryPoint, checks: countChecks(predicate) }
  const runs = known.runs.get(component) ?? []
  known.runs.set(
    component,
    [{ ...summary, sequence, digest, leftBehind: leftovers.removed === false }, ...runs].slice(0, RUNS_MAX),
  )
}
