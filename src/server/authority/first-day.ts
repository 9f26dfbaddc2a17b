import type { Accounts } from '../../authority/accounts.ts'
import { copyOf, type PersonCopy } from '../../catalog/people-copies.ts'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { AskedRepositories } from './asked-repositories.ts'
import { readPeople } from './people-keeper.ts'

const FIRST_DAY_MS = 24 * 3_600_000

/**
 * Whether people are still made by one: on the first day, and until there is an approver beside whoever asks. The store alone does not say so, because who writes it may delete rows: the
 * repositories have to agree. Throws STORAGE_UNREACHABLE where the store says so and a repository cannot be asked.
 */
export async function areMadeByOne(
  person: string,
  options: {
    readonly accounts: Pick<Accounts, 'sealed'>
    readonly clock: Clock
    readonly repositories: () => Promise<AskedRepositories>
  },
): Promise<boolean> {
  const { accounts, clock } = options
  const { good, changed } = await accounts.sealed.sort()
  // Somebody who writes the store would like it to be the first day.
  if (changed.length > 0) return false
  const people = new Map(good.map((each) => [each.id, copyOf(each)]))
  const nowMs = clock.now()
  if (!isSetUp([...people.values()], person, nowMs)) return false
  const { opened, away } = await options.repositories()
  if (away.length > 0 || opened.length === 0) throw cannotBeAsked(away)
  for (const repository of opened) {
    const { ids, kept } = await readPeople(repository)
    // Whoever is known is in each of them: one that lies empty now says nothing.
    if (ids.length === 0) throw cannotBeAsked([repository.system])
    // Rows were deleted, or a lost store is not whole again yet.
    if (ids.some((id) => !people.has(id))) return false
    for (const copy of kept.map((each) => each.person)) {
      if (copy.version > people.get(copy.id)!.version) people.set(copy.id, copy)
    }
  }
  return isSetUp([...people.values()], person, nowMs)
}

function isSetUp(people: readonly PersonCopy[], asker: string, nowMs: number): boolean {
  const firstMs = Math.min(...people.map(({ madeAt }) => Date.parse(madeAt)))
  if (nowMs - firstMs < FIRST_DAY_MS) return true
  return !people.some(
    ({ id, state, grants }) =>
      id !== asker && state === 'active' && grants.some(({ role, facilities }) => role === 'approver' && facilities === null),
  )
}

function cannotBeAsked(systems: readonly string[]): Failure {
  const whose =
    systems.length === 0 ? 'there is none' : `that of ${systems.map((each) => `"${each}"`).join(', ')} does not answer`
  return new Failure('STORAGE_UNREACHABLE', `the repositories know whether one person alone may change people, and ${whose}`, {
    hint: 'see to the storage, and ask again',
  })
}
