import type pg from 'pg'
import { Failure } from '../../../errors.ts'
import { parseTimelineHistory, type TimelineBranch } from '../../../postgres/timeline-history.ts'
import type { Repository } from '../../../repository/repository.ts'
import { baselineMoments, momentLsn, readBaseline, type Baseline, type BaselineMoment } from './baseline.ts'
import type { CheckedCopy } from './content-check.ts'
import { hasUnseenCommits } from './snapshot-exactness.ts'

/** So many are looked through for one that the copy can be held against. */
const BASELINES_MAX = 500

/**
 * What a copy is held against. `exact`: it holds precisely the transactions that the baseline's snapshot saw. `later`: all of them, and more. `earlier`: the copy ends before the baseline, so that what it
 * lacks may be right.
 */
export type HeldBaseline =
  { readonly kind: 'exact' | 'later' | 'earlier'; readonly baseline: Baseline } | { readonly kind: 'none'; readonly why: string }

/** The baseline of a component for a copy: looked up once, however many checks ask. */
export class BaselineShelf {
  readonly #repository: Repository
  readonly #component: string
  #held: Promise<HeldBaseline> | undefined

  constructor(repository: Repository, component: string) {
    this.#repository = repository
    this.#component = component
  }

  /** The newest that the copy has behind it; where all are of later moments, the first of them. Throws what the storage and the copy's server throw. */
  async find(copy: CheckedCopy): Promise<HeldBaseline> {
    this.#held ??= this.#find(copy)
    return await this.#held
  }

  async #find(copy: CheckedCopy): Promise<HeldBaseline> {
    try {
      return await this.#choose(copy)
    } catch (error) {
      // What was noted of the server is damaged, and that says nothing against the copy.
      if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') return { kind: 'none', why: error.message }
      throw error
    }
  }

  async #choose(copy: CheckedCopy): Promise<HeldBaseline> {
    const { signal } = copy
    const origin = await copy.server.anySession(readOrigin)
    let [looked, foreign] = [0, 0]
    let later: string | undefined
    for await (const { name, moment } of baselineMoments(this.#repository, this.#component, { signal })) {
      looked += 1
      if (looked > BASELINES_MAX) break
      const place = placeOf(moment, origin)
      if (place === 'within') return await this.#judge(copy, await readBaseline(this.#repository, name, { signal }))
      if (place === 'beyond') later = name
      else foreign += 1
    }
    if (later !== undefined) return { kind: 'earlier', baseline: await readBaseline(this.#repository, later, { signal }) }
    const take = `"resus baseline ${this.#component}" takes one`
    if (foreign > 0) return { kind: 'none', why: `the baselines are of another cluster, or of a timeline that was left: ${take}` }
    return { kind: 'none', why: `there is no baseline: ${take}` }
  }

  async #judge(copy: CheckedCopy, baseline: Baseline): Promise<HeldBaseline> {
    const unseen = await copy.server.anySession(async (client) => hasUnseenCommits(client, baseline, copy.nextTransaction))
    return { kind: unseen ? 'later' : 'exact', baseline }
  }
}

interface Origin {
  readonly systemIdentifier: string
  /** All timelines that the copy came along, each with where it left it; the last is the one that was recovered. */
  readonly branches: readonly TimelineBranch[]
}

async function readOrigin(client: pg.Client): Promise<Origin> {
  const { rows } = await client.query<{ system: string; timeline: string; history: string }>(ORIGIN)
  const { system, timeline, history } = rows[0]!
  return { systemIdentifier: system, branches: parseTimelineHistory(Number.parseInt(timeline, 16), history) }
}

function placeOf(moment: BaselineMoment, { systemIdentifier, branches }: Origin): 'within' | 'beyond' | 'elsewhere' {
  const branch = branches.find(({ timeline }) => timeline === moment.timeline)
  if (moment.systemIdentifier !== systemIdentifier || branch === undefined) return 'elsewhere'
  if (momentLsn(moment) <= branch.endLsn) return 'within'
  return branch === branches.at(-1) ? 'beyond' : 'elsewhere'
}

const ORIGIN = `
  select system, timeline, pg_read_file('pg_wal/' || timeline || '.history') as history
  from (select (select system_identifier::text from pg_control_system()) as system, left(pg_walfile_name(pg_current_wal_lsn()), 8) as timeline) o`
