import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { knowsPeople } from '../../authority/clearance.ts'
import { arePeopleKnown } from '../../catalog/people.ts'
import { isStoreAway, type Store } from '../../catalog/store.ts'
import { Failure } from '../../errors.ts'
import { replaceFile } from '../../protect/postgres/durable-file.ts'
import type { Repository } from '../../repository/repository.ts'

/** Says, in the state of a node, that there are people: an old token is worth nothing then, whoever is away. */
const MARK = 'people-are-known'

/** Whether a node knows, by its own state, that there are people. */
export async function isAnybodyKnown(directory: string): Promise<boolean> {
  return (await stat(join(directory, MARK)).catch(() => undefined)) !== undefined
}

/** Whether this node has worked without people: with the first of them the token is removed. */
export async function hadNobody(state: string): Promise<boolean> {
  if (await isAnybodyKnown(state)) return false
  return (await stat(join(state, 'administrator-token')).catch(() => undefined)) !== undefined
}

/** `unknown`: a repository that cannot be asked may know people. */
export type PeopleState = 'unknown' | 'none' | 'some'

/** Whether there are people: once there are, there always are. */
export class KnownPeople {
  state: PeopleState = 'unknown'
  readonly #directory: string
  readonly #store: Store
  readonly #systems: () => readonly string[]
  readonly #repositoryOf: (system: string) => Promise<Repository>

  constructor(options: {
    readonly directory: string
    readonly store: Store
    readonly systems: () => readonly string[]
    readonly repositoryOf: (system: string) => Promise<Repository>
  }) {
    this.#directory = options.directory
    this.#store = options.store
    this.#systems = options.systems
    this.#repositoryOf = options.repositoryOf
  }

  async look(): Promise<PeopleState> {
    if (this.state === 'some') return this.state
    const found = await this.#find()
    if (found === 'some') await this.note()
    this.state = found
    return found
  }

  /** There are people from now on. What let somebody in before is removed. */
  async note(): Promise<void> {
    await replaceFile(
      join(this.#directory, MARK),
      'the administrator token and the link for the first administrator are worth nothing any more\n',
    )
    this.state = 'some'
    for (const file of ['administrator-token', 'first-administrator']) await rm(join(this.#directory, file), { force: true })
  }

  async #find(): Promise<PeopleState> {
    if (await isAnybodyKnown(this.#directory)) return 'some'
    if (await this.#isInStore()) return 'some'
    let unknown = false
    for (const system of this.#systems()) {
      try {
        if (await knowsPeople(await this.#repositoryOf(system))) return 'some'
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        // One that is to be made yet knows nobody.
        unknown ||= error.code !== 'REPOSITORY_MISSING'
      }
    }
    return unknown ? 'unknown' : 'none'
  }

  /** People are made in the store alone: while it is away there are none more than the repositories know. */
  async #isInStore(): Promise<boolean> {
    try {
      return await arePeopleKnown(this.#store.sql)
    } catch (error) {
      if (isStoreAway(error)) return false
      throw error
    }
  }
}
