import { Failure } from '../../errors.ts'
import type { Repository } from '../../repository/repository.ts'
import type { CallOptions } from '../../storage/storage.ts'
import { appendFirst, appendRecord, keyAfter, newestRecord, type Appending, type StoredRecord } from './chain.ts'
import { makeSigningKey, publicKeyText, readSigningKey } from './signing-key.ts'

/** The key that signs the next record, as a verifier needs it; undefined before the first record. Throws what the storage throws. */
export async function currentKey(
  repository: Repository,
  call: CallOptions = {},
): Promise<{ readonly fingerprint: string; readonly publicKey: string } | undefined> {
  const newest = await newestRecord(repository, call)
  if (newest === undefined) return undefined
  const key = await readSigningKey(repository, keyAfter(newest), call)
  return { fingerprint: key.fingerprint, publicKey: publicKeyText(key) }
}

/**
 * Begins the chain, where nobody has: the first record names the key that has signed it, so that its fingerprint is known, and kept elsewhere, before the first drill. Gives the key in force.
 * Throws what the storage throws.
 */
export async function beginEvidence(appending: Appending): Promise<{ readonly fingerprint: string; readonly publicKey: string }> {
  const { repository, signal } = appending
  const call = signal === undefined ? {} : { signal }
  const known = await currentKey(repository, call)
  if (known !== undefined) return known
  const { predicate } = await appendFirst(appending)
  if (predicate.kind === 'key') return { fingerprint: predicate.fingerprint, publicKey: predicate.publicKey }
  throw new Failure('INTERRUPTED', 'the evidence was begun by somebody else at the same moment', { hint: 'run it again' })
}

/** Makes another key and has the one in force name it. From that record on it signs. Of two at once both rotate, one behind the other. */
export async function rotateSigningKey(appending: Appending): Promise<StoredRecord> {
  const { repository, clock, signal } = appending
  const key = await makeSigningKey(repository, clock.now(), signal === undefined ? {} : { signal })
  return await appendRecord(appending, { kind: 'key', publicKey: publicKeyText(key), fingerprint: key.fingerprint }, [
    { name: 'signing key', digest: { sha256: key.fingerprint } },
  ])
}
