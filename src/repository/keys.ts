import { createCipheriv, createDecipheriv, randomBytes, scrypt, type ScryptOptions } from 'node:crypto'
import { z } from 'zod'
import { Secret } from '../secret.ts'
import type { KeyMaterial } from './key-ring.ts'

// Slots that wrap a repository's keys (docs/format.md, "Keys").

const KEY_BYTES = 32
const TAG_BYTES = 16
const NONCE_BYTES = 12

/** scrypt's cost: memory is 128 × N × r bytes. 2^17 is 128 MiB and a third of a second. */
export const DEFAULT_KDF_COST = 2 ** 17

const base64 = z.string().transform((text) => Buffer.from(text, 'base64'))

export const keySlotSchema = z.object({
  format: z.literal(1),
  key: z.string().regex(/^[0-9a-f]{16}$/),
  slot: z.string().regex(/^[0-9a-f]{8}$/),
  createdAt: z.string(),
  kind: z.literal('passphrase'),
  kdf: z.object({
    name: z.literal('scrypt'),
    // What scrypt would refuse is damage, and has to be said as such.
    N: z
      .number()
      .int()
      .min(2)
      .max(2 ** 20)
      .refine((cost) => Number.isInteger(Math.log2(cost)), 'scrypt takes a power of two'),
    r: z.number().int().min(1).max(32),
    p: z.number().int().min(1).max(16),
    salt: base64,
  }),
  // One letter that is none of base64's cuts it off, and a cipher refuses that in words of its own.
  nonce: base64.refine((nonce) => nonce.length === NONCE_BYTES, 'its nonce has another length'),
  wrapped: base64,
})
export type KeySlot = z.infer<typeof keySlotSchema>

/** New random secrets for a new repository. */
export function newKeyMaterial(): KeyMaterial {
  return {
    key: randomBytes(8).toString('hex'),
    identitySecret: new Secret(randomBytes(KEY_BYTES)),
    dataKey: new Secret(randomBytes(KEY_BYTES)),
  }
}

/** Wraps the secrets with a passphrase: the text of a `keys/` object and its slot's name. `kdfCost` is scrypt's N. */
export async function wrapKey(options: {
  repository: string
  material: KeyMaterial
  passphrase: Secret
  createdAt: string
  kdfCost?: number
}): Promise<{ slot: string; text: string }> {
  const { repository, material, createdAt } = options
  const slot = randomBytes(4).toString('hex')
  const kdf = { name: 'scrypt' as const, N: options.kdfCost ?? DEFAULT_KDF_COST, r: 8, p: 1, salt: randomBytes(32) }
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', await deriveWrappingKey(options.passphrase, kdf), nonce)
  cipher.setAAD(wrappingContext(repository, { key: material.key, slot, createdAt }))
  const secrets = Buffer.concat([material.identitySecret.reveal(), material.dataKey.reveal()])
  const wrapped = Buffer.concat([cipher.update(secrets), cipher.final(), cipher.getAuthTag()])
  const text = JSON.stringify({
    format: 1,
    key: material.key,
    slot,
    createdAt,
    kind: 'passphrase',
    kdf: { ...kdf, salt: kdf.salt.toString('base64') },
    nonce: nonce.toString('base64'),
    wrapped: wrapped.toString('base64'),
  })
  return { slot, text }
}

/** Opens a slot. Undefined when the passphrase does not fit it. */
export async function unwrapKey(repository: string, slot: KeySlot, passphrase: Secret): Promise<KeyMaterial | undefined> {
  const decipher = createDecipheriv('aes-256-gcm', await deriveWrappingKey(passphrase, slot.kdf), slot.nonce)
  decipher.setAAD(wrappingContext(repository, slot))
  if (slot.wrapped.length !== 2 * KEY_BYTES + TAG_BYTES) return undefined
  decipher.setAuthTag(slot.wrapped.subarray(2 * KEY_BYTES))
  try {
    const secrets = Buffer.concat([decipher.update(slot.wrapped.subarray(0, 2 * KEY_BYTES)), decipher.final()])
    const identitySecret = new Secret(secrets.subarray(0, KEY_BYTES))
    return { key: slot.key, identitySecret, dataKey: new Secret(secrets.subarray(KEY_BYTES)) }
  } catch {
    // GCM says only that it does not fit, and that is the answer.
    return undefined
  }
}

/** The time is part of it, because the newest key seals: who owns the storage must not make an old, stolen one the newest. */
function wrappingContext(repository: string, { key, slot, createdAt }: { key: string; slot: string; createdAt: string }): Buffer {
  return Buffer.from(`resus/1 ${repository} ${key} ${slot} ${createdAt}`)
}

function deriveWrappingKey(passphrase: Secret, kdf: { N: number; r: number; p: number; salt: Buffer }): Promise<Buffer> {
  const options: ScryptOptions = { N: kdf.N, r: kdf.r, p: kdf.p, maxmem: 256 * kdf.N * kdf.r }
  return new Promise((resolve, reject) => {
    scrypt(passphrase.reveal(), kdf.salt, KEY_BYTES, options, (error, key) => (error === null ? resolve(key) : reject(error)))
  })
}
