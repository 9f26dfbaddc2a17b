import { grantSchema, ROLES, type Grant } from '../authority/principal.ts'
import { Failure } from '../errors.ts'
import type { Given } from './verb.ts'

/** `operator` for all facilities, `operator:ila,ede` for these: of each `--grant`. Throws ARGUMENTS_INVALID. */
export function parseGrants(given: Given): Grant[] {
  const texts = given.options.grant
  if (!Array.isArray(texts)) {
    throw new Failure('ARGUMENTS_INVALID', 'no --grant was given', { hint: 'like --grant operator --grant approver:ila,ede' })
  }
  return texts.map((text) => parseGrant(String(text)))
}

export function parseGrant(text: string): Grant {
  const [role, facilities, ...rest] = text.split(':')
  const parsed = grantSchema.safeParse({ role, facilities: facilities?.split(',') ?? null })
  if (parsed.success && rest.length === 0) return parsed.data
  throw new Failure('ARGUMENTS_INVALID', `"${text}" is no grant`, {
    hint: `a role (${ROLES.join(', ')}), for some facilities with their ids: operator:ila,ede`,
  })
}

/** As `parseGrant` reads it. */
export function formatGrants(grants: readonly Grant[]): string {
  if (grants.length === 0) return 'no grants'
  return grants.map(({ role, facilities }) => (facilities === null ? role : `${role}:${facilities.join(',')}`)).join(' ')
}
