import type { Principal } from '../authority/principal.ts'
import { reaches, type Action } from '../authority/roles.ts'
import type { BackupSummary } from '../catalog/backups.ts'
import type { Configuration } from '../config/configuration.ts'
import { systemNamed } from '../config/systems.ts'
import { Failure } from '../errors.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import { componentKey } from './component-key.ts'

/** Which component is meant; what is left out is the only one there is. */
export interface Which {
  readonly system?: string | undefined
  readonly component?: string | undefined
}

/** What somebody sees of everything that is protected, and may do a certain thing with. What they may not see is for them as if it were not there. */
export class View {
  readonly principal: Principal
  readonly #catalogue: Catalogue
  readonly #action: Action
  /** Without limits: also what belongs to no component. */
  readonly isWhole: boolean

  constructor(catalogue: Catalogue, principal: Principal, action: Action) {
    this.#catalogue = catalogue
    this.principal = principal
    this.#action = action
    this.isWhole = reaches(principal, 'status.read', [])
  }

  /** The same for all who see the same. */
  get key(): string {
    if (this.isWhole) return '*'
    const facilities = new Set(this.principal.grants.flatMap((grant) => grant.facilities ?? []))
    return JSON.stringify([...facilities].toSorted())
  }

  pictures(): readonly ComponentPicture[] {
    const all = this.#catalogue.pictures()
    return this.isWhole
      ? all
      : all.filter((picture) => reaches(this.principal, 'status.read', facilitiesOf(this.#catalogue, picture)))
  }

  systems(): readonly Configuration[] {
    const all = this.#catalogue.systems
    if (this.isWhole) return all
    const seen = new Set(this.pictures().map(({ system }) => system))
    return all.filter(({ system }) => seen.has(system))
  }

  /** Whether a component is seen; without one, what belongs to the system or to Resus itself. */
  sees(system: string | null, component: string | null): boolean {
    if (this.isWhole) return true
    const picture = system === null || component === null ? undefined : this.#catalogue.picture(system, component)
    return picture !== undefined && reaches(this.principal, 'status.read', facilitiesOf(this.#catalogue, picture))
  }

  /** Whose data something is about, as it is configured now; empty for the whole installation. */
  facilitiesOf(about: About): readonly string[] {
    return facilitiesAbout(this.#catalogue, about)
  }

  seesFacility(facility: string): boolean {
    return this.isWhole || reaches(this.principal, 'status.read', [facility])
  }

  /** Names of components that are seen, to ask the store for; undefined for all. */
  limits(): ReadonlySet<string> | undefined {
    return this.isWhole
      ? undefined
      : new Set(this.pictures().map(({ system, component }) => componentKey(system, component.name)))
  }

  /** Whether all is seen that a component holds: its records tell of every facility in it. */
  seesAllOf({ system, component }: ComponentPicture): boolean {
    if (this.isWhole) return true
    const known = Object.keys(this.#catalogue.systems.find((each) => each.system === system)?.facilities ?? {})
    const facilities = component.facilities ?? known
    return facilities.length > 0 && facilities.every((facility) => this.seesFacility(facility))
  }

  /** The name of the system that is meant. Throws CONFIG_INVALID, COMPONENT_UNKNOWN, ARGUMENTS_INVALID. */
  system(name: string | undefined): string {
    const all = this.systems()
    if (name !== undefined) return systemNamed(all, name).system
    const [only, ...others] = all
    if (only !== undefined && others.length === 0) return only.system
    throw new Failure('ARGUMENTS_INVALID', 'which system? There are several', {
      hint: `name "system": ${all.map(({ system }) => `"${system}"`).join(', ')}`,
    })
  }

  /** The component that is meant. Throws COMPONENT_UNKNOWN; ARGUMENTS_INVALID where it takes a name; FORBIDDEN where this may not be done with it. */
  component({ system, component }: Which): ComponentPicture {
    const all = this.pictures()
    const found = all.filter(
      (each) =>
        (system === undefined || each.system === system) && (component === undefined || each.component.name === component),
    )
    const [only, ...others] = found
    if (only !== undefined && others.length === 0) return this.#reached(only)
    const known = all.slice(0, 20).map((each) => `"${each.system}/${each.component.name}"`)
    if (found.length > 1) {
      throw new Failure('ARGUMENTS_INVALID', 'which component? There are several', {
        hint: `name "system" and "component": ${known.join(', ')}`,
      })
    }
    throw new Failure('COMPONENT_UNKNOWN', `there is no component "${system ?? '(any)'}/${component ?? '(any)'}"`, {
      hint: `there is ${known.join(', ') || 'none'}`,
    })
  }

  /** A backup by its id. Throws BACKUP_UNKNOWN, ARGUMENTS_INVALID, FORBIDDEN. */
  backup(id: string, which: Which): { readonly picture: ComponentPicture; readonly backup: BackupSummary } {
    const candidates = this.pictures().filter(
      (each) =>
        (which.system === undefined || each.system === which.system) &&
        (which.component === undefined || each.component.name === which.component),
    )
    const found = candidates.flatMap((picture) =>
      picture.backups.filter((backup) => backup.id === id).map((backup) => ({ picture, backup })),
    )
    const [only, ...others] = found
    if (only === undefined) throw new Failure('BACKUP_UNKNOWN', `there is no backup "${id}"`, { hint: 'GET backups lists them' })
    if (others.length > 0) {
      throw new Failure('ARGUMENTS_INVALID', `several components have a backup "${id}"`, {
        hint: 'name "system" and "component"',
      })
    }
    this.#reached(only.picture)
    return only
  }

  /** Throws FORBIDDEN where it may not be done with a component that is seen, or is configured no more. */
  requireReached(system: string, component: string | null): void {
    const picture = component === null ? undefined : this.#catalogue.picture(system, component)
    if (picture === undefined && !this.reaches([])) throw this.#forbidden(system, component)
    if (picture !== undefined) this.#reached(picture)
  }

  /** Whether it may be done with what holds these facilities; none: the whole installation. */
  reaches(facilities: readonly string[]): boolean {
    return reaches(this.principal, this.#action, facilities)
  }

  #reached(picture: ComponentPicture): ComponentPicture {
    if (reaches(this.principal, this.#action, facilitiesOf(this.#catalogue, picture))) return picture
    throw this.#forbidden(picture.system, picture.component.name)
  }

  #forbidden(system: string, component: string | null): Failure {
    return new Failure('FORBIDDEN', `"${system}/${component ?? '-'}" holds other facilities' data too`, {
      hint: 'somebody with a grant for all of them can do it',
    })
  }
}

/** Whose data a component holds: of all facilities of its system, where it does not say. */
export function facilitiesOf(catalogue: Catalogue, { system, component }: ComponentPicture): readonly string[] {
  return component.facilities ?? Object.keys(catalogue.systems.find((each) => each.system === system)?.facilities ?? {})
}

/** What something is about that names it; null for what belongs to no system, or to no component. */
interface About {
  readonly system: string | null
  readonly component: string | null
}

/** The same of what is only named. What is not configured (any more) is the whole installation's. */
export function facilitiesAbout(catalogue: Catalogue, { system, component }: About): readonly string[] {
  const picture = system === null || component === null ? undefined : catalogue.picture(system, component)
  return picture === undefined ? [] : facilitiesOf(catalogue, picture)
}
