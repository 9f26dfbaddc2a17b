import { z } from 'zod'
import { canonicalJson } from '../../authority/canonical-json.ts'
import type { Accounts } from '../../authority/accounts.ts'
import { copyOf, insertPeopleCopies, personCopySchema, replaceByCopy, type PersonCopy } from '../../catalog/people-copies.ts'
import type { Store } from '../../catalog/store.ts'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { listAuthority, putAuthority, readAuthority } from '../../repository/authority-objects.ts'
import { randomId, timeName } from '../../repository/layout.ts'
import type { Repository } from '../../repository/repository.ts'

const schema = z.object({ format: z.literal(1), at: z.iso.datetime({ precision: 3 }), person: personCopySchema })

/** A person as a repository has them, under which name. */
export interface Kept {
  readonly name: string
  readonly person: PersonCopy
  readonly text: string
}

/** What was found to be changed in the store, and not by Resus. */
export interface FoundChanged {
  readonly id: string
  readonly name: string
  /** The row that was put back was replaced by the newer one of a repository. */
  readonly isReplaced: boolean
}

/** Of one look at all people. */
export interface Sorted {
  readonly found: readonly FoundChanged[]
  readonly good: readonly { readonly id: string; readonly name: string }[]
}

/** Keeps people in the repositories, and brings them back into a store that has lost them (docs/authority.md). */
export class PeopleKeeper {
  readonly #store: Store
  readonly #clock: Clock
  readonly #accounts: Pick<Accounts, 'sealed' | 'sealOfCopy'>
  /** What each repository has of each person. */
  #kept = new WeakMap<Repository, Map<string, Kept>>()

  constructor(store: Store, clock: Clock, accounts: Pick<Accounts, 'sealed' | 'sealOfCopy'>) {
    this.#store = store
    this.#clock = clock
    this.#accounts = accounts
  }

  /**
   * Puts what has changed, of those who fit their seal: nobody else's change takes the place of a good copy. Who is older in the store than the repository has them was put back by somebody:
   * what the repository has counts. Gives whom somebody has changed. Throws what the store and the storage throw.
   */
  async keep(repository: Repository): Promise<Sorted> {
    const { good, changed } = await this.#accounts.sealed.sort()
    const found: FoundChanged[] = changed.map(({ id, name }) => ({ id, name, isReplaced: false }))
    const kept = await this.#read(repository)
    const current: PersonCopy[] = []
    for (const copy of good.map(copyOf)) {
      const newest = kept.get(copy.id)?.person
      if (newest === undefined || newest.version <= copy.version) current.push(copy)
      else if (await replaceByCopy(this.#store.sql, newest, this.#accounts.sealOfCopy(newest))) {
        found.push({ id: copy.id, name: newest.name, isReplaced: true })
      }
    }
    await this.#keepIn(repository, current)
    return { found, good }
  }

  /** Brings back whom the store does not know. Gives how many came. */
  async restore(repository: Repository): Promise<number> {
    const copies = [...(await this.#read(repository)).values()].map(({ person }) => person)
    return copies.length === 0 ? 0 : await insertPeopleCopies(this.#store.sql, copies, (copy) => this.#accounts.sealOfCopy(copy))
  }

  /** Another node writes: what was read is not to be relied upon. */
  forget(): void {
    this.#kept = new WeakMap()
  }

  async #keepIn(repository: Repository, people: readonly PersonCopy[]): Promise<void> {
    const kept = await this.#read(repository)
    for (const person of people) {
      const text = canonicalJson(person)
      const before = kept.get(person.id)
      if (before?.text === text) continue
      // Names tell seconds apart, and the newest has to sort last, also by a clock that is behind.
      const beforeMs = before === undefined ? 0 : timeOf(before.name) + 1000
      const nowMs = Math.max(this.#clock.now(), beforeMs)
      const name = `people/${person.id}/${timeName(nowMs)}-${randomId()}`
      await putAuthority(repository, name, { format: 1, at: new Date(nowMs).toISOString(), person })
      kept.set(person.id, { name, person, text })
    }
  }

  /** The newest of each person; read once. */
  async #read(repository: Repository): Promise<Map<string, Kept>> {
    const known = this.#kept.get(repository)
    if (known !== undefined) return known
    const { kept } = await readPeople(repository)
    const found = new Map(kept.map((each) => [each.person.id, each]))
    this.#kept.set(repository, found)
    return found
  }
}

/** Who is in a repository: all of whom there is anything, and the newest of each. One that is damaged is passed over, and the one before counts. */
export async function readPeople(
  repository: Repository,
): Promise<{ readonly ids: readonly string[]; readonly kept: readonly Kept[] }> {
  const ids = new Set<string>()
  const found = new Map<string, Kept>()
  for (const name of (await listAuthority(repository, 'people/')).toReversed()) {
    const id = name.split('/')[1] ?? ''
    ids.add(id)
    if (found.has(id)) continue
    const person = await readPerson(repository, name)
    if (person?.id === id) found.set(id, { name, person, text: canonicalJson(person) })
  }
  return { ids: [...ids], kept: [...found.values()] }
}

async function readPerson(repository: Repository, name: string): Promise<PersonCopy | undefined> {
  try {
    const read = schema.safeParse(await readAuthority(repository, name))
    return read.success ? read.data.person : undefined
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') return undefined
    throw error
  }
}

function timeOf(name: string): number {
  const text = name.split('/')[2]?.slice(0, 16) ?? ''
  return Date.parse(text.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z'))
}
