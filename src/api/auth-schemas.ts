import { z } from 'zod'
import { givenFactorSchema, registrationSchema } from '../authority/given-factor.ts'
import { approvalSchema } from './authority-schemas.ts'
import { FACTORS, grantSchema } from '../authority/principal.ts'

// The documents of logging on, and of one's own account.

const time = z.iso.datetime()
const password = z.string().min(1).max(1000)
const ticket = z.string().regex(/^[\w-]{43}$/, 'a ticket')
const label = z.string().regex(/^[^\p{Cc}]{1,100}$/u, '1 to 100 characters')
const shown = givenFactorSchema.optional().describe('where there is a second factor already: that one, shown now')
/** As WebAuthn defines it: handed through to the browser as it is. */
const passkeyOptions = z.record(z.string(), z.unknown())

export const logOnBody = z.strictObject({ name: z.string().min(1).max(200), password })
export const secondFactorBody = z.strictObject({ ticket, factor: givenFactorSchema })
export const ticketBody = z.strictObject({ ticket })
export const invitationBody = z.strictObject({ code: ticket, password })
export const beginFactorBody = z.strictObject({ label, shown })
export const finishTotpBody = z.strictObject({ ticket, code: z.string().regex(/^\d{6}$/, 'six digits') })
export const finishPasskeyBody = z.strictObject({ response: registrationSchema })
export const removeFactorBody = z.strictObject({ shown: givenFactorSchema })
export const passwordBody = z.strictObject({ old: password, next: password })
export const wantedTokenBody = z.strictObject({
  name: label,
  grants: z.array(grantSchema).min(1).max(20),
  expiresAt: z.iso.datetime({ offset: true }).describe('within 400 days'),
})
export const tokenBody = wantedTokenBody.extend({
  shown: givenFactorSchema.optional().describe('a second factor, shown now for this token'),
})

const sessionDocument = z.object({
  csrf: z.string().describe('to be sent as X-Resus-Csrf with whatever changes something'),
  endsAt: time.describe('at the latest; 15 minutes without a request end it earlier'),
})

export const logOnSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('session'),
    session: sessionDocument,
    isFactorNeeded: z.boolean().describe('nothing but making a second factor is possible'),
  }),
  z.object({
    kind: z.literal('second-factor'),
    ticket: z.string().describe('good once, for five minutes'),
    factors: z.array(z.enum(['totp', 'passkey'])),
    passkey: passkeyOptions.nullable().describe('for navigator.credentials.get'),
  }),
])

export const meSchema = z.object({
  kind: z.enum(['person', 'token', 'bootstrap']),
  id: z.string(),
  person: z.string().nullable(),
  name: z.string(),
  grants: z.array(grantSchema),
  factor: z.enum(FACTORS),
  session: sessionDocument.nullable(),
  isFactorNeeded: z.boolean(),
  isReadOnly: z.boolean().describe('the store is away: nothing can be changed'),
})

export const factorSchema = z.object({
  id: z.uuid(),
  kind: z.enum(['totp', 'passkey']),
  label: z.string(),
  madeAt: time,
  lastUsedAt: time.nullable(),
})
export const factorsSchema = z.object({ items: z.array(factorSchema) })
export const challengeSchema = z.object({
  passkey: passkeyOptions.nullable().describe('for navigator.credentials.get; null: there is no passkey'),
})
export const totpBegunSchema = z.object({
  ticket: z.string(),
  secret: z.string().describe('base32; shown this once'),
  uri: z.string().describe('for the QR code'),
})
export const passkeyBegunSchema = z.object({ passkey: passkeyOptions.describe('for navigator.credentials.create') })
export const factorMadeSchema = z.object({
  factor: factorSchema,
  session: sessionDocument.nullable().describe('where it was the first factor: another session, with another cookie'),
})

export const tokenSchema = z.object({
  id: z.uuid(),
  name: z.string(),
  grants: z.array(grantSchema),
  madeAt: time,
  expiresAt: time,
  lastUsedAt: time.nullable().describe('to the minute'),
  revokedAt: time.nullable(),
})
export const tokensSchema = z.object({ items: z.array(tokenSchema) })
export const tokenAskedSchema = z.object({
  token: z.string().describe('shown this once; worth nothing before it is approved'),
  approval: approvalSchema,
})
export const tokenMadeSchema = z.object({ token: z.string().describe('shown this once'), view: tokenSchema })

export const ownSessionsSchema = z.object({
  items: z.array(
    z.object({
      id: z.uuid(),
      isThis: z.boolean(),
      madeAt: time,
      seenAt: time,
      address: z.string().nullable(),
      userAgent: z.string().nullable(),
    }),
  ),
})
