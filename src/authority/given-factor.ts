import { z } from 'zod'

const base64url = z.string().regex(/^[\w-]{1,20000}$/)
const transports = z.array(z.string().max(30)).max(10)

/** As browsers give it (WebAuthn's `PublicKeyCredential.toJSON`). */
export const assertionSchema = z.object({
  id: base64url,
  rawId: base64url,
  type: z.literal('public-key'),
  response: z.object({
    clientDataJSON: base64url,
    authenticatorData: base64url,
    signature: base64url,
    userHandle: base64url.optional(),
  }),
  clientExtensionResults: z.object({}).default({}),
})

export const registrationSchema = z.object({
  id: base64url,
  rawId: base64url,
  type: z.literal('public-key'),
  response: z.object({ clientDataJSON: base64url, attestationObject: base64url, transports: transports.optional() }),
  clientExtensionResults: z.object({}).default({}),
})

/** A second factor, as somebody gives it. */
export const givenFactorSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('totp'), code: z.string().regex(/^\d{6}$/, 'six digits') }),
  z.strictObject({ kind: z.literal('passkey'), response: assertionSchema }),
])
export type GivenFactor = z.infer<typeof givenFactorSchema>
export type GivenAssertion = z.infer<typeof assertionSchema>
export type GivenRegistration = z.infer<typeof registrationSchema>
