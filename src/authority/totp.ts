import { generateSecret, generateURI, verifySync } from 'otplib'

// RFC 6238 as every application knows it: SHA-1, 6 digits, 30 seconds; one step of drift either way.

const PERIOD_SECONDS = 30
const CODE = /^\d{6}$/
const ISSUER = 'Resus'

/** In base32, as people type it. */
export function newTotpSecret(): string {
  return generateSecret()
}

/** For the QR code. */
export function totpUri({ secret, name }: { readonly secret: string; readonly name: string }): string {
  return generateURI({ issuer: ISSUER, label: name, secret })
}

/** The time step that a code is of; undefined when it is of none near this instant. Whoever asks takes the step, so that a code is good once. */
export function stepOfCode({
  secret,
  code,
  nowMs,
}: {
  readonly secret: string
  readonly code: string
  readonly nowMs: number
}): number | undefined {
  if (!CODE.test(code)) return undefined
  const result = verifySync({ secret, token: code, epoch: Math.floor(nowMs / 1000), epochTolerance: PERIOD_SECONDS })
  return result.valid && 'timeStep' in result ? result.timeStep : undefined
}
