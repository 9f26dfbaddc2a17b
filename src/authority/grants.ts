import { z } from 'zod'
import type { GrantRow } from '../catalog/schema.ts'
import { grantSchema, type Grant, type Role } from './principal.ts'

const grantsSchema = z.array(grantSchema)

/** What the store has. What is no grant grants nothing: a row that somebody has edited must not stop whoever reads it. */
export function grantsOf(rows: readonly GrantRow[]): Grant[] {
  const parsed = grantsSchema.safeParse(rows)
  return parsed.success ? parsed.data : []
}

/** What of these grants lies within somebody's own. Every role reads as a viewer does. */
export function within(wanted: readonly Grant[], own: readonly Grant[]): Grant[] {
  return wanted.flatMap(({ role, facilities }) => {
    const reach = reachOf(role, own)
    if (reach === 'all') return [{ role, facilities }]
    const both = facilities === null ? [...reach] : facilities.filter((each) => reach.has(each))
    return both.length === 0 ? [] : [{ role, facilities: both }]
  })
}

/** Whether all of them do. */
export function areWithin(wanted: readonly Grant[], own: readonly Grant[]): boolean {
  return wanted.every(({ role, facilities }) => {
    const reach = reachOf(role, own)
    return reach === 'all' || (facilities !== null && facilities.every((each) => reach.has(each)))
  })
}

function reachOf(role: Role, own: readonly Grant[]): 'all' | ReadonlySet<string> {
  const of = own.filter((each) => each.role === role || role === 'viewer')
  return of.some(({ facilities }) => facilities === null) ? 'all' : new Set(of.flatMap(({ facilities }) => facilities ?? []))
}
