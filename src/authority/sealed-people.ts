import { insertPerson, type NewPersonRow } from '../catalog/people.ts'
import { copyOf } from '../catalog/people-copies.ts'
import type { Store } from '../catalog/store.ts'
import {
  lockPerson,
  putPersonSeal,
  readWholePeople,
  readWholePerson,
  type WhichPerson,
  type WholePerson,
} from '../catalog/whole-people.ts'
import { Failure } from '../errors.ts'
import type { SealingKey } from './sealing-key.ts'
import { isPersonSealed, sealOfPerson } from './seals.ts'

/** What somebody else than Resus has written into the store. */
export interface ChangedOutside {
  readonly person: { readonly id: string; readonly name: string }
  readonly what: 'account' | 'token' | 'session'
}

type Queries = Store['sql']

/**
 * People as they are in the store, each under a seal that Resus alone can make. Who does not fit their seal is nobody: they log on nowhere, ask nothing, decide nothing, and no change of
 * them makes them good.
 */
export class SealedPeople {
  readonly #store: Store
  readonly #key: SealingKey
  readonly #onChanged: (found: ChangedOutside) => void

  constructor(store: Store, key: SealingKey, onChanged: (found: ChangedOutside) => void) {
    this.#store = store
    this.#key = key
    this.#onChanged = onChanged
  }

  /** Undefined for nobody. Throws PEOPLE_CHANGED_OUTSIDE. */
  async read(which: WhichPerson, queries: Queries = this.#store.sql): Promise<WholePerson | undefined> {
    const person = await readWholePerson(queries, which)
    if (person !== undefined) this.#require(person)
    return person
  }

  /** Undefined also for who does not fit their seal: where what is asked must not tell. */
  async readGood(which: WhichPerson): Promise<WholePerson | undefined> {
    const person = await readWholePerson(this.#store.sql, which)
    if (person === undefined || isPersonSealed(this.#key, person)) return person
    this.#tell(person)
    return undefined
  }

  /** All of them, and who of them does not fit their seal. */
  async sort(): Promise<{ readonly good: readonly WholePerson[]; readonly changed: readonly WholePerson[] }> {
    const { good = [], changed = [] } = Object.groupBy(await readWholePeople(this.#store.sql), (person) =>
      isPersonSealed(this.#key, person) ? 'good' : 'changed',
    )
    return { good, changed }
  }

  /** False when the name, or the identity, is somebody's already. */
  async insert(person: NewPersonRow): Promise<boolean> {
    return await this.#store.sql.transaction().execute(async (queries) => {
      if (!(await insertPerson(queries, person))) return false
      await this.#seal(queries, person.id, 1)
      return true
    })
  }

  /** Changes what is sealed: one at a time, and nothing of what somebody else has changed. Throws PERSON_UNKNOWN, PEOPLE_CHANGED_OUTSIDE, and what the work throws: then nothing is changed. */
  async change<T>(id: string, work: (queries: Queries, before: WholePerson) => Promise<T>): Promise<T> {
    return await this.#change(id, async (queries, before) => {
      this.#require(before)
      return await work(queries, before)
    })
  }

  /** The same of whoever they are now: for what takes everything away. */
  async changeWhatever<T>(id: string, work: (queries: Queries, before: WholePerson, isGood: boolean) => Promise<T>): Promise<T> {
    return await this.#change(id, async (queries, before) => work(queries, before, isPersonSealed(this.#key, before)))
  }

  /** Seals whom nobody has sealed yet: once, when sealing begins. */
  async begin(): Promise<number> {
    const unsealed = (await readWholePeople(this.#store.sql)).filter(({ seal }) => seal === null)
    for (const { id } of unsealed) await this.#change(id, async () => undefined)
    return unsealed.length
  }

  async #change<T>(id: string, work: (queries: Queries, before: WholePerson) => Promise<T>): Promise<T> {
    return await this.#store.sql.transaction().execute(async (queries) => {
      await lockPerson(queries, id)
      const before = await readWholePerson(queries, { id })
      if (before === undefined) throw new Failure('PERSON_UNKNOWN', 'there is no such person')
      const result = await work(queries, before)
      await this.#seal(queries, id, before.version + 1)
      return result
    })
  }

  async #seal(queries: Queries, id: string, version: number): Promise<void> {
    const person = await readWholePerson(queries, { id })
    if (person === undefined) return
    await putPersonSeal(queries, { id, version, seal: sealOfPerson(this.#key, copyOf({ ...person, version })) })
  }

  #require(person: WholePerson): void {
    if (isPersonSealed(this.#key, person)) return
    this.#tell(person)
    throw new Failure('PEOPLE_CHANGED_OUTSIDE', `the account "${person.name}" was changed in the store, and not by Resus`, {
      hint: 'find out who may write there; "resus user disable" takes everything from it, and then it is made good again step by step',
    })
  }

  #tell({ id, name }: WholePerson): void {
    this.#onChanged({ person: { id, name }, what: 'account' })
  }
}
