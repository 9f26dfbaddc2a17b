import { recordCompliance, rollUpCompliance, type ComplianceEntry } from '../catalog/compliance.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import type { ObjectiveName } from '../config/objectives-settings.ts'
import type { Availability } from '../recovery/availability.ts'
import { actualRpo, judge, type ActualRpo, type Judgement, type ProvenRecovery, type ZeroLoss } from '../recovery/judgement.ts'
import { objectiveNames, resolveObjectives, type Objectives } from '../recovery/objectives.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import type { EvidenceBook } from './evidence-book.ts'
import type { Receivers } from './receivers.ts'

/** What was promised of a component, and whether it is kept now. */
export interface ObjectivesView {
  readonly system: string
  readonly component: string
  readonly objectives: Objectives
  readonly judgements: Readonly<Record<ObjectiveName, Judgement | null>>
  /** With the repository alone, and with the spool of the receiver's host besides. */
  readonly rpo: { readonly repository: ActualRpo; readonly spool: ActualRpo }
}

/** The repository and the server are asked every minute. */
const STATUS_HOLDS_MS = 180_000

/** Holds what is measured against what was promised, every minute. */
export class ObjectivesWatch {
  readonly #store: Store
  readonly #catalogue: Catalogue
  readonly #receivers: Receivers
  readonly #evidence: EvidenceBook
  readonly #clock: Clock
  readonly #availabilityOf: (system: string, component: string) => Availability | null

  constructor(options: {
    readonly store: Store
    readonly catalogue: Catalogue
    readonly receivers: Receivers
    readonly evidence: EvidenceBook
    readonly clock: Clock
    readonly availabilityOf: (system: string, component: string) => Availability | null
  }) {
    this.#store = options.store
    this.#catalogue = options.catalogue
    this.#receivers = options.receivers
    this.#evidence = options.evidence
    this.#clock = options.clock
    this.#availabilityOf = options.availabilityOf
  }

  /** As of now, from memory. */
  views(): ObjectivesView[] {
    return this.#catalogue.pictures().map((picture) => this.#view(picture))
  }

  /** Writes this minute down. */
  async record(): Promise<void> {
    const now = new Date(this.#clock.now())
    const entries = this.views().flatMap(({ system, component, judgements }) =>
      objectiveNames.flatMap((objective): ComplianceEntry[] => {
        const judgement = judgements[objective]
        if (judgement === null || judgement.target === null) return []
        const { target, actual, verdict } = judgement
        return [{ system, component, objective, target, actual, verdict }]
      }),
    )
    await recordCompliance(this.#store.sql, now, entries)
    await rollUpCompliance(this.#store.sql, now)
  }

  #view(picture: ComponentPicture): ObjectivesView {
    const { system, component } = picture
    const configuration = this.#catalogue.systems.find((each) => each.system === system)
    const objectives = resolveObjectives({ objectives: configuration?.objectives }, component)
    const rpo = this.#rpo(picture)
    const recovery = this.#provenRecovery(picture)
    const availability = this.#availabilityOf(system, component.name)
    const zeroLoss = this.#zeroLoss(picture)
    const judgements = judge(objectives, { rpo: rpo.repository, zeroLoss, recovery, availability }, this.#clock.now())
    return { system, component: component.name, objectives, judgements, rpo }
  }

  #rpo({ system, component, backups, asOf }: ComponentPicture): ObjectivesView['rpo'] {
    if (asOf === null || backups.length === 0) {
      // WAL without a backup brings nothing back.
      const why = asOf === null ? 'its repository was not read yet' : 'there is no backup to recover from'
      const nothing: ActualRpo = { kind: 'not proven', why }
      return { repository: nothing, spool: nothing }
    }
    const report = this.#receivers.exposure(system, component.name)
    if (report === undefined) {
      const unknown: ActualRpo = { kind: 'not proven', why: 'nobody on this node receives its WAL, or says how far it is' }
      return { repository: unknown, spool: unknown }
    }
    const { exposures, trouble } = report
    const said = { repository: actualRpo(exposures, 'repository'), spool: actualRpo(exposures, 'spool') }
    if (trouble === null || exposures.newest !== null) return said
    // There was no heartbeat at all: what keeps us from beating is the reason, with what to do.
    const why = `${trouble.message}${trouble.code === 'HEARTBEAT_MISSING' ? ': run the SQL of "resus config --heartbeat ROLE" in its database' : ''}`
    return { repository: { kind: 'not proven', why }, spool: { kind: 'not proven', why } }
  }

  /** A receiver on the database's host that acknowledges what its own disk has loses that disk with the host. */
  #zeroLoss({ system, component, status, backups, problem, asOf }: ComponentPicture): ZeroLoss | null {
    if (status === null || asOf === null) return null
    if (problem !== null) return { holds: false, why: `its repository cannot be read now: ${problem.message}` }
    if (this.#clock.now() - Date.parse(asOf) > STATUS_HOLDS_MS)
      return { holds: false, why: `its repository was last read at ${asOf}` }
    const { stream } = component
    const receiving = this.#receivers.picture(system, component.name)?.state
    if (backups.length === 0) return { holds: false, why: 'there is no backup to recover from' }
    if ((receiving ?? 'receiving') !== 'receiving' || !status.receiver.active)
      return { holds: false, why: 'its WAL is not being received' }
    if (!status.receiver.awaited)
      return { holds: false, why: 'commits do not all wait for Resus (synchronous_standby_names, synchronous_commit)' }
    if (stream.acknowledge !== 'repository') {
      return {
        holds: false,
        why: "commits wait for the receiver's own disk, which may be lost with its host: acknowledge: repository",
      }
    }
    return {
      holds: true,
      why: 'no commit is acknowledged before the repository has it, unless its session asks for that (synchronous_commit)',
    }
  }

  /** By the last drill, from the fault to its first verified transaction; where there was none, the whole time of the last proof. */
  #provenRecovery({ system, component, status, problem }: ComponentPicture): ProvenRecovery | null {
    // What cannot be read now cannot be restored now.
    if (problem !== null) return null
    const runs = this.#evidence.runs(system, component.name) ?? []
    // Back to the newest moment: an older one is quicker there, and is not what is asked for on the day.
    const newest = runs.find(({ recoveryPoint }) => recoveryPoint.turn === 'latest' || recoveryPoint.target === 'latest')
    if (newest !== undefined) {
      const { verdict, madeAt: at, expires, measured } = newest
      if (verdict !== 'verified' || measured.rtoSeconds === null) return null
      return { seconds: measured.rtoSeconds, at, expires, scenario: null }
    }
    const proven = status?.proven ?? null
    return proven === null ? null : { seconds: proven.seconds, at: proven.at, expires: proven.expires, scenario: null }
  }
}
