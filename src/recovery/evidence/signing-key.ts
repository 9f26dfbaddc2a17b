import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { z } from 'zod'
import { Failure } from '../../errors.ts'
import { putEvidence, readEvidence } from '../../repository/evidence-objects.ts'
import type { Repository } from '../../repository/repository.ts'
import type { CallOptions } from '../../storage/storage.ts'
import { fingerprintOf } from './envelope.ts'

// The keys that sign records (docs/evidence.md, "The signing key"): which of them is in force the chain itself says.

const keySchema = z.object({
  format: z.literal(1),
  at: z.iso.datetime({ precision: 3 }),
  algorithm: z.literal('Ed25519'),
  privateKey: z.string().max(500),
})

/** A signing key; its private half never leaves this process but sealed. */
export interface SigningKey {
  readonly fingerprint: string
  readonly privateKey: KeyObject
}

/** Makes a key and keeps it, sealed. It signs nothing until a record names it. Throws what the storage throws. */
export async function makeSigningKey(repository: Repository, nowMs: number, call: CallOptions = {}): Promise<SigningKey> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const fingerprint = fingerprintOf(publicKey)
  const document = {
    format: 1,
    at: new Date(nowMs).toISOString(),
    algorithm: 'Ed25519',
    privateKey: privateKey.export({ format: 'der', type: 'pkcs8' }).toString('base64'),
  } satisfies z.infer<typeof keySchema>
  await putEvidence(repository, keyName(fingerprint), document, call)
  return { fingerprint, privateKey }
}

/** The key of a fingerprint. Throws OBJECT_MISSING when the repository does not have it, OBJECT_DAMAGED, and what the storage throws. */
export async function readSigningKey(repository: Repository, fingerprint: string, call: CallOptions = {}): Promise<SigningKey> {
  const name = keyName(fingerprint)
  const document = await readEvidence(repository, name, call)
  if (document === undefined) {
    throw new Failure('OBJECT_MISSING', `the key that signs evidence, "${name}", is not in the repository`, {
      hint: 'bring the object back from another copy of the storage; without it no record can be added',
    })
  }
  const known = keySchema.safeParse(document)
  const privateKey = known.success
    ? createPrivateKey({ key: Buffer.from(known.data.privateKey, 'base64'), format: 'der', type: 'pkcs8' })
    : undefined
  if (privateKey === undefined || fingerprintOf(createPublicKey(privateKey)) !== fingerprint) {
    throw new Failure('OBJECT_DAMAGED', `the key that signs evidence, "${name}", is not what its name says`, {
      hint: 'bring the object back from another copy of the storage',
    })
  }
  return { fingerprint, privateKey }
}

/** What a verifier needs: PEM. */
export function publicKeyText({ privateKey }: SigningKey): string {
  return createPublicKey(privateKey).export({ format: 'pem', type: 'spki' }).toString()
}

function keyName(fingerprint: string): string {
  return `keys/${fingerprint}`
}
