import { asOwner } from '../database/owner.ts'
import { compareInTransaction } from '../events/rebuild.ts'
import type { Difference, ProjectionComparison } from '../events/shadow.ts'
import { FindingList, type Check } from './verdict.ts'

/** Makes them again beside the hospital, on a second connection that looks at the very same snapshot, and leaves nothing behind. */
export const projections: Check = {
  name: 'projections',
  run: async ({ snapshot, connectionString }) => {
    if (snapshot === undefined)
      return { kind: 'not proven', reason: 'a server in recovery cannot make the tables to compare with' }
    const compared = await asOwner({ connectionString, name: 'hospital check' }, async (other) => {
      await other.query('begin isolation level repeatable read')
      await other.query(`set transaction snapshot '${snapshot}'`)
      return await compareInTransaction(other)
    })
    const list = findingsIn(compared)
    return {
      kind: 'judged',
      expected: 'every projection is what the events say, by the hashes of its rows',
      found: `${compared.reduce((sum, { rebuilt }) => sum + rebuilt, 0)} rows of ${compared.length} projections`,
      findings: list.findings,
      total: list.total,
    }
  },
}

function findingsIn(compared: readonly ProjectionComparison[]): FindingList {
  const list = new FindingList()
  for (const { table, differing, differences } of compared) {
    for (const each of differences) list.add(`${table} ${Object.values(each.key).join(' ')}`, problemOf(each))
    list.total += differing - differences.length
  }
  return list
}

function problemOf({ kind, columns }: Difference): string {
  if (kind === 'changed') return `differs in ${columns.join(', ')}`
  return kind === 'missing' ? 'is missing, and the events have it' : 'is there, and no event says so'
}
