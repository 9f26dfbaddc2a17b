import type { Repository } from '../../repository/repository.ts'
import type { CallOptions } from '../../storage/storage.ts'
import { appendRecord, keyAfter, newestRecord, type Appending, type StoredRecord } from './chain.ts'
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

/** Makes another key and has the one in force name it. From that record on it signs. Of two at once both rotate, one behind the other. */
export async function rotateSigningKey(appending: Appending): Promise<StoredRecord> {
  const { repository, clock, signal } = appending
  const key = await makeSigningKey(repository, clock.now(), signal === undefined ? {} : { signal })
  return await appendRecord(appending, { kind: 'key', publicKey: publicKeyText(key), fingerprint: key.fingerprint }, [
    { name: 'signing key', digest: { sha256: key.fingerprint } },
  ])
}
