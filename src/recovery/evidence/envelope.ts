import { createHash, createPublicKey, sign, verify, type KeyObject } from 'node:crypto'
import { z } from 'zod'
import { canonicalJson, type Json } from '../../authority/canonical-json.ts'

// DSSE envelopes (github.com/secure-systems-lab/dsse, protocol.md, version 1.0.2) that hold in-toto statements (in-toto.io/Statement/v1).

export const PAYLOAD_TYPE = 'application/vnd.in-toto+json'
/** A record has kilobytes; what is longer was not made by us. */
const PAYLOAD_CHARACTERS_MAX = 8 * 1024 * 1024

const fingerprintSchema = z.string().regex(/^[0-9a-f]{64}$/, '64 hex digits')

export const envelopeSchema = z.strictObject({
  payloadType: z.literal(PAYLOAD_TYPE),
  payload: z.base64().max(PAYLOAD_CHARACTERS_MAX),
  signatures: z.array(z.strictObject({ keyid: fingerprintSchema, sig: z.base64().max(200) })).length(1),
})
export type Envelope = z.infer<typeof envelopeSchema>

/** What is signed: DSSE's pre-authentication encoding. */
export function preAuthenticationEncoding(payload: Uint8Array): Buffer {
  const head = `DSSEv1 ${Buffer.byteLength(PAYLOAD_TYPE)} ${PAYLOAD_TYPE} ${payload.length} `
  return Buffer.concat([Buffer.from(head), payload])
}

/** Signs a statement, in canonical JSON, with an Ed25519 key. */
export function signStatement(statement: Json, privateKey: KeyObject): Envelope {
  const payload = Buffer.from(canonicalJson(statement))
  const sig = sign(null, preAuthenticationEncoding(payload), privateKey).toString('base64')
  const keyid = fingerprintOf(createPublicKey(privateKey))
  return { payloadType: PAYLOAD_TYPE, payload: payload.toString('base64'), signatures: [{ keyid, sig }] }
}

/** The bytes of an envelope's payload. */
export function payloadOf({ payload }: Envelope): Buffer {
  return Buffer.from(payload, 'base64')
}

/** Of the payload's bytes, in hex: by this the next record names it. */
export function payloadDigest(envelope: Envelope): string {
  return createHash('sha256').update(payloadOf(envelope)).digest('hex')
}

/** Whether this Ed25519 key has signed it, whatever its `keyid` says. */
export function isSignedBy(envelope: Envelope, publicKey: KeyObject): boolean {
  const [signature] = envelope.signatures
  if (signature === undefined || publicKey.asymmetricKeyType !== 'ed25519') return false
  return verify(null, preAuthenticationEncoding(payloadOf(envelope)), publicKey, Buffer.from(signature.sig, 'base64'))
}

/** SHA-256, in hex, of a public key in DER (SubjectPublicKeyInfo). `openssl pkey -pubin -outform der | sha256sum` gives the same. */
export function fingerprintOf(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ format: 'der', type: 'spki' }))
    .digest('hex')
}
