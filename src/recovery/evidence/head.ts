import { createPublicKey } from 'node:crypto'
import type { Clock } from '../../clock.ts'
import type { Repository } from '../../repository/repository.ts'
import type { CallOptions } from '../../storage/storage.ts'
import { keyAfter, type StoredRecord } from './chain.ts'
import { fingerprintOf, signStatement, type Envelope } from './envelope.ts'
import { HEAD_TYPE, STATEMENT_TYPE, type HeadPredicate } from './record.ts'
import { readSigningKey } from './signing-key.ts'

// The signed count (docs/evidence.md, "Verifying"): told to somebody outside, it shows what is cut off later.

/** Signs how many records there are. `records`: all of them, ascending, up to the newest. */
export async function signHead(
  signing: { readonly repository: Repository; readonly clock: Clock; readonly call?: CallOptions },
  newest: StoredRecord,
  part: Pick<HeadPredicate, 'records' | 'from' | 'until'>,
): Promise<{ readonly envelope: Envelope; readonly fingerprint: string; readonly publicKey: string }> {
  const { repository, clock, call = {} } = signing
  const { privateKey } = await readSigningKey(repository, keyAfter(newest), call)
  const publicKey = createPublicKey(privateKey)
  const { system } = newest.predicate
  const statement = {
    _type: STATEMENT_TYPE,
    subject: [{ name: `evidence of ${system}`, digest: { sha256: newest.digest } }],
    predicateType: HEAD_TYPE,
    predicate: {
      format: 1,
      system,
      at: new Date(clock.now()).toISOString(),
      count: newest.sequence,
      last: newest.digest,
      ...part,
    },
  }
  return {
    envelope: signStatement(statement, privateKey),
    fingerprint: fingerprintOf(publicKey),
    publicKey: publicKey.export({ format: 'pem', type: 'spki' }).toString(),
  }
}
