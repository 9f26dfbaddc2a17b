import { z } from 'zod'
import { parseSecretReference, secretReferenceSchema, type SecretReference } from '../config/secret-reference.ts'
import type { Role } from './principal.ts'

const ADDRESS = /^(https:\/\/[^\s?#]+|http:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?(\/[^\s?#]*)?)$/
const address = z.string().regex(ADDRESS, 'an https address; http for loopback alone')
const groups = z.union([z.string().min(1), z.array(z.string().min(1)).max(100)]).default([])
const never = z
  .unknown()
  .refine(
    (each) => each === undefined,
    'nothing: an identity provider never grants this; whoever has it shows a factor of Resus’s own',
  )
  .optional()

export const identityProviderSchema = z.strictObject({
  issuer: address.describe('as its discovery document has it'),
  clientId: z.string().min(1).max(300),
  clientSecret: secretReferenceSchema,
  redirect: address.describe('https://NAME/api/v1/auth/oidc/callback, as the provider knows it'),
  groupsClaim: z.string().min(1).max(300).default('groups').describe('the claim that names groups'),
  groups: z
    .strictObject({ viewer: groups, operator: groups, auditor: groups, approver: never, administrator: never })
    .describe('who of the provider’s groups is what, for all facilities'),
})

export interface IdentityProviderSettings {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: SecretReference
  readonly redirect: string
  readonly groupsClaim: string
  /** By group. */
  readonly roles: ReadonlyMap<string, readonly ProvidedRole[]>
}

/** What an identity provider may say that somebody is. */
export const PROVIDED_ROLES = ['viewer', 'operator', 'auditor'] as const satisfies readonly Role[]
export type ProvidedRole = (typeof PROVIDED_ROLES)[number]

/** A relative path of the secret is relative to `directory`. */
export function resolveIdentityProvider(
  settings: z.infer<typeof identityProviderSchema>,
  directory: string,
): IdentityProviderSettings {
  const roles = new Map<string, ProvidedRole[]>()
  for (const role of PROVIDED_ROLES) {
    for (const group of [settings.groups[role]].flat()) roles.set(group, [...(roles.get(group) ?? []), role])
  }
  const { issuer, clientId, redirect, groupsClaim } = settings
  // The schema has taken it as one.
  const clientSecret = parseSecretReference(settings.clientSecret, directory)!
  return { issuer, clientId, clientSecret, redirect, groupsClaim, roles }
}
