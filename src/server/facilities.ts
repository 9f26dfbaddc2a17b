import { componentKey } from './component-key.ts'
import type { StatusBoard } from './status-board.ts'
import type { Catalogue } from './catalogue.ts'
import type { ObjectivesView } from './objectives-watch.ts'

/** How a facility stands: it is as well protected as the worst of the components that hold its data. */
export interface FacilityView {
  readonly system: string
  readonly facility: string
  readonly name: string
  readonly lga: string | null
  readonly type: string | null
  readonly components: readonly string[]
  /** Verified when all of them are; failed when one is. Without a component nothing of it is protected: not proven. */
  readonly verdict: 'verified' | 'failed' | 'not proven'
  /** The worst that was measured; null where one of its components is not measured. */
  readonly rpoSeconds: number | null
  readonly rtoMinutes: number | null
  /** Of components that hold its data alone; what it shares with others nobody can divide. */
  readonly ownBytes: number
  readonly sharedBytes: number
}

/** All facilities of all systems, from memory. */
export function facilityViews(catalogue: Catalogue, board: StatusBoard, objectives: readonly ObjectivesView[]): FacilityView[] {
  const status = new Map(board.backupStatus().components.map((each) => [componentKey(each.system, each.component), each]))
  const promised = new Map(objectives.map((each) => [componentKey(each.system, each.component), each]))
  return catalogue.systems.flatMap(({ system, facilities = {} }) => {
    const pictures = catalogue.pictures().filter((picture) => picture.system === system)
    return Object.entries(facilities).map(([facility, { name, lga, type }]): FacilityView => {
      const own = pictures.filter(({ component }) => component.facilities?.includes(facility) ?? true)
      const keys = own.map(({ component }) => componentKey(system, component.name))
      const verdicts = keys.map((key) => status.get(key)?.verdict ?? 'not proven')
      const bytesOf = (isOwn: boolean) =>
        own
          .filter(({ component }) => isOwn === ((component.facilities ?? Object.keys(facilities)).length === 1))
          .reduce((sum, { backups }) => sum + (backups[0]?.bytes ?? 0), 0)
      return {
        system,
        facility,
        name,
        lga: lga ?? null,
        type: type ?? null,
        components: own.map(({ component }) => component.name),
        verdict: worstOf(verdicts),
        rpoSeconds: greatest(keys.map((key) => rpoOf(promised.get(key)))),
        rtoMinutes: greatest(keys.map((key) => promised.get(key)?.judgements.rtoMinutes?.actual ?? null)),
        ownBytes: bytesOf(true),
        sharedBytes: bytesOf(false),
      }
    })
  })
}

function worstOf(verdicts: readonly FacilityView['verdict'][]): FacilityView['verdict'] {
  if (verdicts.includes('failed')) return 'failed'
  return verdicts.length > 0 && verdicts.every((verdict) => verdict === 'verified') ? 'verified' : 'not proven'
}

function rpoOf(view: ObjectivesView | undefined): number | null {
  const rpo = view?.rpo.repository
  return rpo?.kind === 'measured' ? rpo.seconds : null
}

/** Null when one is not known: the worst may be that one. */
function greatest(values: readonly (number | null)[]): number | null {
  let found: number | null = null
  for (const value of values) {
    if (value === null) return null
    found = found === null ? value : Math.max(found, value)
  }
  return found
}
