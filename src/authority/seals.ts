import type { SealedToken } from '../catalog/tokens.ts'
import type { SealedFamily } from '../catalog/session-families.ts'
import type { SealedTicket } from '../catalog/tickets.ts'
import { copyOf, type PersonCopy } from '../catalog/people-copies.ts'
import type { WholePerson } from '../catalog/whole-people.ts'
import type { Json } from './canonical-json.ts'
import { canonicalJson } from './canonical-json.ts'
import type { SealingKey } from './sealing-key.ts'

// What the seal of each kind of row is over: which row it is, and all of it that gives somebody authority (docs/authority.md, "Seals").

export function sealOfPerson(key: SealingKey, person: PersonCopy): Buffer {
  return key.sealRow('person', canonicalJson(person as unknown as Json))
}

export function isPersonSealed(key: SealingKey, person: WholePerson): boolean {
  return key.isRowSealed(person.seal, 'person', canonicalJson(copyOf(person) as unknown as Json))
}

/** All that never changes: whether it was revoked, the row says as it likes, and the trail says it too. */
export function sealOfToken(key: SealingKey, token: SealedToken): Buffer {
  return key.sealRow('token', tokenText(token))
}

export function isTokenSealed(key: SealingKey, token: SealedToken & { readonly seal: Buffer | null }): boolean {
  return key.isRowSealed(token.seal, 'token', tokenText(token))
}

export function sealOfFamily(key: SealingKey, family: SealedFamily): Buffer {
  return key.sealRow('session', familyText(family))
}

export function isFamilySealed(key: SealingKey, family: SealedFamily & { readonly seal: Buffer | null }): boolean {
  return key.isRowSealed(family.seal, 'session', familyText(family))
}

export function sealOfTicket(key: SealingKey, ticket: SealedTicket): Buffer {
  return key.sealRow('ticket', ticketText(ticket))
}

export function isTicketSealed(key: SealingKey, ticket: SealedTicket & { readonly seal: Buffer | null }): boolean {
  return key.isRowSealed(ticket.seal, 'ticket', ticketText(ticket))
}

function tokenText({ id, person, name, digest, grants, made_at, expires_at }: SealedToken): string {
  const times = [made_at.toISOString(), expires_at.toISOString()]
  return canonicalJson([id, person, name, digest.toString('hex'), grants as unknown as Json, ...times])
}

function familyText({ id, person, factor, grants, made_at }: SealedFamily): string {
  return canonicalJson([id, person, factor, grants as unknown as Json, made_at.toISOString()])
}

function ticketText({ digest, purpose, person, data, sealed, expires_at }: SealedTicket): string {
  const bytes = [digest.toString('hex'), sealed?.toString('hex') ?? null]
  return canonicalJson([...bytes, purpose, person, data as Json, expires_at.toISOString()])
}
