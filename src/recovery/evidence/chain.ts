import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import type { Json } from '../../authority/canonical-json.ts'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { listRecords, putEvidence, readEvidence, recordName } from '../../repository/evidence-objects.ts'
import type { Repository } from '../../repository/repository.ts'
import { damaged } from '../../repository/sealed-object.ts'
import type { CallOptions } from '../../storage/storage.ts'
import { envelopeSchema, payloadDigest, signStatement, type Envelope } from './envelope.ts'
import {
  EVIDENCE_TYPE,
  STATEMENT_TYPE,
  statementOf,
  type NewRecord,
  type Predicate,
  type Subject,
  type WordRecord,
} from './record.ts'
import { makeSigningKey, publicKeyText, readSigningKey, type SigningKey } from './signing-key.ts'

// The chain of records in a repository (docs/evidence.md).

/** So many others may come first. */
const TRIES = 20
const systemSchema = z.string().min(1)

export interface StoredRecord {
  readonly sequence: number
  readonly digest: string
  readonly envelope: Envelope
  readonly subject: Subject
  readonly predicate: Predicate
}

export interface Appending {
  readonly repository: Repository
  readonly system: string
  readonly clock: Clock
  readonly signal?: AbortSignal
}

/**
 * Signs a record and puts it at the end of the chain; it is durable when this resolves. Of two that append at once each gets a number of its own. Throws OBJECT_DAMAGED when the newest record
 * does not open (nothing is appended behind what nobody can read), OBJECT_MISSING when its signing key is gone, and what the storage throws.
 */
export async function appendRecord(appending: Appending, record: NewRecord, subject: Subject): Promise<StoredRecord> {
  const { repository, clock, signal } = appending
  const call = signal === undefined ? {} : { signal }
  const id = randomUUID()
  let made: SigningKey | undefined
  for (let tries = 0; tries < TRIES; tries += 1) {
    const newest = await newestRecord(repository, call)
    // A key that was made for a first record which another node has put before us signs nothing.
    const key =
      newest === undefined
        ? (made ??= await makeSigningKey(repository, clock.now(), call))
        : await readSigningKey(repository, keyAfter(newest), call)
    const stored = await putSigned(appending, { record, subject, id, newest, key })
    if (stored !== undefined) return stored
  }
  throw new Failure('STORAGE_UNREACHABLE', `the record could not be added: ${TRIES} times in a row another one came first`, {
    hint: 'do other nodes make drills all at once? Run it again',
  })
}

/** Adds what somebody says of a record. Throws what `appendRecord` throws. */
export async function appendWord(appending: Appending, word: WordRecord): Promise<StoredRecord> {
  const subject = [{ name: `record ${word.of.sequence} of ${appending.system}`, digest: { sha256: word.of.digest } }]
  return await appendRecord(appending, word, subject)
}

/** Signs one record and puts it behind the newest; undefined when another one has taken its number. */
async function putSigned(
  { repository, system, clock, signal }: Appending,
  made: {
    readonly record: NewRecord
    readonly subject: Subject
    readonly id: string
    readonly newest: StoredRecord | undefined
    readonly key: SigningKey
  },
): Promise<StoredRecord | undefined> {
  const { record, subject, id, newest, key } = made
  const sequence = (newest?.sequence ?? 0) + 1
  const statement = {
    _type: STATEMENT_TYPE,
    subject,
    predicateType: EVIDENCE_TYPE,
    predicate: {
      format: 1,
      sequence,
      id,
      previous: newest?.digest ?? null,
      madeAt: new Date(clock.now()).toISOString(),
      system: systemSchema.parse(system),
      ...record,
    },
  }
  const envelope = signStatement(JSON.parse(JSON.stringify(statement)) as Json, key.privateKey)
  // What cannot be read back must not be kept.
  const stored = openRecord(envelope, recordName(sequence))
  const call = signal === undefined ? {} : { signal }
  return (await putEvidence(repository, recordName(sequence), envelope, call)) ? stored : undefined
}

/** The record that begins a chain: it names the key that signs it. Where another one has begun it meanwhile, that one's newest record. */
export async function appendFirst(appending: Appending): Promise<StoredRecord> {
  const { repository, clock, signal } = appending
  const call = signal === undefined ? {} : { signal }
  const key = await makeSigningKey(repository, clock.now(), call)
  const record: NewRecord = { kind: 'key', publicKey: publicKeyText(key), fingerprint: key.fingerprint }
  const subject = [{ name: 'signing key', digest: { sha256: key.fingerprint } }]
  return (
    (await putSigned(appending, { record, subject, id: randomUUID(), newest: undefined, key })) ??
    (await newestRecord(repository, call))!
  )
}

/** The last record; undefined when there is none. Throws OBJECT_DAMAGED, and what the storage throws. */
export async function newestRecord(repository: Repository, call: CallOptions = {}): Promise<StoredRecord | undefined> {
  const sequence = (await listRecords(repository, call)).at(-1)
  return sequence === undefined ? undefined : await readRecord(repository, sequence, call)
}

/** One record, by its number. Throws EVIDENCE_UNKNOWN, OBJECT_DAMAGED, and what the storage throws. Its signature is not looked at. */
export async function readRecord(repository: Repository, sequence: number, call: CallOptions = {}): Promise<StoredRecord> {
  return openRecord(await readEnvelope(repository, sequence, call), recordName(sequence))
}

/** Its envelope alone: what a verifier judges. */
export async function readEnvelope(repository: Repository, sequence: number, call: CallOptions = {}): Promise<Envelope> {
  const name = recordName(sequence)
  const document = await readEvidence(repository, name, call)
  if (document === undefined) {
    throw new Failure('EVIDENCE_UNKNOWN', `there is no record ${sequence}`, {
      hint: '"resus evidence list" shows those that there are',
    })
  }
  const envelope = envelopeSchema.safeParse(document)
  if (!envelope.success) throw damaged(name, `it is no envelope: ${envelope.error.issues[0]?.message}`)
  return envelope.data
}

/** All records, newest first, one at a time in memory. Damaged ones are told and passed over. */
export async function* recordsBackwards(
  repository: Repository,
  onDamaged: (sequence: number, failure: Failure) => void,
  call: CallOptions = {},
): AsyncGenerator<StoredRecord> {
  for (const sequence of (await listRecords(repository, call)).toReversed()) {
    try {
      yield await readRecord(repository, sequence, call)
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== 'OBJECT_DAMAGED') throw error
      onDamaged(sequence, error)
    }
  }
}

/** The fingerprint of the key that signs behind this record. */
export function keyAfter({ predicate, envelope }: Pick<StoredRecord, 'predicate' | 'envelope'>): string {
  return predicate.kind === 'key' ? predicate.fingerprint : envelope.signatures[0]!.keyid
}

/** Reads an envelope as a record. Throws OBJECT_DAMAGED. */
export function openRecord(envelope: Envelope, name: string): StoredRecord {
  const { predicate, subject } = statementOf(envelope, name)
  return { sequence: predicate.sequence, digest: payloadDigest(envelope), envelope, subject, predicate }
}
