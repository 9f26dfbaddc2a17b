import type { Finding } from '../check-list.ts'
import { readCatalogFacts, type CatalogFact } from './catalog-facts.ts'
import { askingRole } from './asking-role.ts'
import { readOnly, type ContentCheck } from './content-check.ts'
import type { BaselineShelf, HeldBaseline } from './held-baseline.ts'
import { textSettings } from './table-digest.ts'

const TIMEOUT_MS = 5 * 60_000
const NAMED_MAX = 5
const FINDINGS_MAX = 500
/** An update of an extension, and with it what it brings: no loss. */
const MAY_CHANGE: ReadonlySet<string> = new Set(['extension'])

/** Extensions, roles, rights, row-level security and settings, against the baseline. */
export function catalogCheck(shelf: BaselineShelf): ContentCheck {
  return {
    name: 'catalog',
    expected: 'each extension, role, membership, right, policy and setting of the baseline, unchanged',
    look: async (copy) => {
      const held = await shelf.find(copy)
      if (held.kind === 'none') return { verdict: 'not proven', found: held.why }
      const facts = await copy.server.session(held.baseline.database, async (client) =>
        readOnly(client, TIMEOUT_MS, async () => {
          await client.query(textSettings(TIMEOUT_MS))
          return await readCatalogFacts(client)
        }),
      )
      // Ours, which asks queries of this copy.
      const role = await askingRole(copy)
      const own = facts.filter(({ name }) => role === undefined || !name.includes(role))
      return judge(held.kind, held.baseline.catalog, own)
    },
  }
}

interface Difference {
  readonly what: 'lost' | 'changed' | 'added'
  readonly fact: CatalogFact
}

function judge(held: Exclude<HeldBaseline['kind'], 'none'>, was: readonly CatalogFact[], is: readonly CatalogFact[]): Finding {
  const all = compare(was, is)
  const wrong = all.filter((each) => isWrong(each, held))
  const figures = `${was.length} facts of the baseline`
  // Names alone: an administrator may have written anything into a value.
  const findings =
    all.length === 0 ? {} : { findings: all.slice(0, FINDINGS_MAX).map(({ what, fact }) => `${what}: ${label(fact)}`) }
  if (wrong.length > 0) {
    const more = wrong.length > NAMED_MAX ? `, and ${wrong.length - NAMED_MAX} more` : ''
    const names = wrong.slice(0, NAMED_MAX).map(({ what, fact }) => `${what} ${label(fact)}`)
    const found = `${names.join('; ')}${more} (of ${figures})`
    return { verdict: held === 'earlier' ? 'not proven' : 'failed', found, ...findings }
  }
  const drift = all.length === 0 ? '' : `; ${all.length} others are new or newer`
  return { verdict: 'verified', found: `all of ${figures}${drift}`, ...findings }
}

/** Where the copy holds exactly what the baseline saw, nothing may be new either. Before that, nobody can tell. */
function isWrong({ what, fact }: Difference, held: Exclude<HeldBaseline['kind'], 'none'>): boolean {
  if (held !== 'later') return true
  return what === 'lost' || (what === 'changed' && !MAY_CHANGE.has(fact.kind))
}

function compare(was: readonly CatalogFact[], is: readonly CatalogFact[]): Difference[] {
  const before = new Map(was.map((fact) => [keyOf(fact), fact]))
  const now = new Map(is.map((fact) => [keyOf(fact), fact]))
  const lostOrChanged = was.flatMap((fact): Difference[] => {
    const same = now.get(keyOf(fact))
    if (same === undefined) return [{ what: 'lost', fact }]
    return same.value === fact.value ? [] : [{ what: 'changed', fact }]
  })
  const added = is.filter((fact) => !before.has(keyOf(fact))).map((fact): Difference => ({ what: 'added', fact }))
  return [...lostOrChanged, ...added]
}

function keyOf({ kind, key }: CatalogFact): string {
  return `${kind} ${key}`
}

function label({ kind, name }: CatalogFact): string {
  return `${kind} ${name}`
}
