import { createPublicKey, type KeyObject } from 'node:crypto'
import { Failure } from '../../errors.ts'
import { openRecord } from './chain.ts'
import { fingerprintOf, isSignedBy, payloadDigest, type Envelope } from './envelope.ts'
import { headSchema, parsed, type HeadPredicate } from './record.ts'

// Whether a chain of records is as it was signed (docs/evidence.md, "Verifying"). It needs nothing but what it is given: no repository, no network.

/** A record as it was found under its number. */
export interface FoundRecord {
  readonly sequence: number
  readonly envelope: Envelope | Failure
}

export type EvidenceProblemKind = 'changed' | 'missing' | 'moved' | 'foreign key' | 'cut' | 'damaged'
export interface EvidenceProblem {
  readonly kind: EvidenceProblemKind
  /** Null where it is about the whole. */
  readonly sequence: number | null
  readonly text: string
}

export interface EvidenceReport {
  /** Not proven: nothing is wrong, but nobody outside said whose key it has to be. */
  readonly verdict: 'verified' | 'failed' | 'not proven'
  readonly why: string
  readonly records: number
  readonly first: number | null
  readonly last: number | null
  /** Of the payload of the last record: what to note elsewhere. */
  readonly lastDigest: string | null
  /** Of the keys that signed, in order. */
  readonly signers: readonly string[]
  readonly problems: readonly EvidenceProblem[]
}

export interface EvidenceQuestion {
  /** By ascending number. */
  readonly records: AsyncIterable<FoundRecord> | Iterable<FoundRecord>
  /** Public keys that came with the records, in PEM. */
  readonly keys: readonly string[]
  /** From outside: that of a key which signed at least one of the records. */
  readonly fingerprint: string | undefined
  /** The signed count of the bundle: it says which part of the chain this is. Undefined where all of it has to be there. */
  readonly bundleHead?: Envelope | undefined
  /** Signed counts that were noted elsewhere. */
  readonly heads: readonly Envelope[]
}

/** So many problems are listed; more are counted. */
const PROBLEMS_MAX = 1000

/** Judges a chain. One record is in memory at a time. */
export async function verifyEvidence(question: EvidenceQuestion): Promise<EvidenceReport> {
  const chain = new ChainJudge(keysByFingerprint(question.keys), question.fingerprint)
  if (question.bundleHead !== undefined) chain.expectPart(question.bundleHead)
  for (const envelope of question.heads) chain.expectHead(envelope)
  for await (const record of question.records) chain.add(record)
  return chain.finish()
}

class ChainJudge {
  readonly #keys: Map<string, KeyObject>
  readonly #fingerprint: string | undefined
  readonly #problems: EvidenceProblem[] = []
  readonly #signers = new Set<string>()
  readonly #heads: { readonly envelope: Envelope; readonly count: number }[] = []
  /** By number, what signed counts say of each record, until it is found. */
  readonly #expected = new Map<number, HeadPredicate['records'][number]>()
  readonly #headCounts = new Set<number>()
  #fromMs = -Infinity
  #untilMs = Infinity
  /** A bundle of a part begins where the part does; everything else begins with the first record. */
  #isPart = false
  /** By number, which key was in force behind it. */
  readonly #keyBehind = new Map<number, string>()
  #count = 0
  #first: number | null = null
  #last = 0
  #lastDigest: string | null = null
  /** The key that has to sign the next record. */
  #inForce: string | undefined
  /** After a record that is missing, or cannot be read, nobody knows whether it named another key. */
  #keyUnknown = false
  #isTrusted = false

  constructor(keys: Map<string, KeyObject>, fingerprint: string | undefined) {
    this.#keys = keys
    this.#fingerprint = fingerprint
  }

  expectPart(envelope: Envelope): void {
    const head = this.expectHead(envelope)
    if (head === undefined) return
    this.#isPart = head.from !== null
    if (head.from !== null) this.#fromMs = Date.parse(head.from)
    if (head.until !== null) this.#untilMs = Date.parse(head.until)
  }

  expectHead(envelope: Envelope): HeadPredicate | undefined {
    const statement = headSchema.safeParse(parsed(envelope))
    if (!statement.success) {
      this.#problem('damaged', null, 'the signed count is none')
      return undefined
    }
    const { count, records } = statement.data.predicate
    this.#heads.push({ envelope, count })
    this.#headCounts.add(count)
    for (const [index, record] of records.entries()) {
      const sequence = count - records.length + index + 1
      const known = this.#expected.get(sequence)
      if (known !== undefined && known.digest !== record.digest)
        this.#problem('changed', sequence, 'two signed counts say that it is another one each')
      this.#expected.set(sequence, record)
    }
    return statement.data.predicate
  }

  add({ sequence, envelope }: FoundRecord): void {
    this.#count += 1
    this.#first ??= sequence
    const previous = this.#lastDigest
    const gap = this.#last === 0 && this.#isPart ? undefined : sequence - this.#last - 1
    if (gap !== undefined && gap > 0) {
      this.#keyUnknown = true
      this.#problem('missing', sequence - gap, gap === 1 ? 'it is not there' : `it and ${gap - 1} more behind it are not there`)
      for (let missing = sequence - gap; missing < sequence && this.#expected.size > 0; missing += 1)
        this.#expected.delete(missing)
    }
    this.#last = sequence
    if (envelope instanceof Failure) {
      this.#expected.delete(sequence)
      this.#problem('damaged', sequence, envelope.message)
      this.#lastDigest = null
      this.#keyUnknown = true
      return
    }
    this.#lastDigest = payloadDigest(envelope)
    const expected = this.#expected.get(sequence)?.digest
    this.#expected.delete(sequence)
    if (expected !== undefined && expected !== this.#lastDigest)
      this.#problem('changed', sequence, 'a signed count says that it was another one')
    this.#judge(sequence, envelope, gap === 0 ? previous : null)
  }

  #judge(sequence: number, envelope: Envelope, previous: string | null): void {
    const signer = envelope.signatures[0]!.keyid
    const key = this.#keys.get(signer)
    const signed = key !== undefined && isSignedBy(envelope, key)
    if (!signed) {
      const why = key === undefined ? `the public key ${signer} is not there` : `the signature is not that of ${signer}`
      this.#problem('changed', sequence, why)
    }
    this.#signers.add(signer)
    if (this.#inForce !== undefined && signer !== this.#inForce && !this.#keyUnknown)
      this.#problem('foreign key', sequence, `it is signed by ${signer}, and ${this.#inForce} was in force`)
    try {
      const record = openRecord(envelope, `record ${sequence}`)
      const { predicate } = record
      if (predicate.sequence !== sequence) this.#problem('moved', sequence, `it says that it is record ${predicate.sequence}`)
      if (sequence === 1 && predicate.previous !== null) this.#problem('moved', 1, 'it is the first, and names one before it')
      if (previous !== null && predicate.previous !== previous)
        this.#problem('changed', sequence, 'it was signed behind another record than the one that is there before it')
      // One record that this key has surely signed holds all before it by their digests, and all behind it by the rule of who signs next.
      if (signed && signer === this.#fingerprint) this.#isTrusted = true
      this.#inForce = signed && predicate.kind === 'key' ? predicate.fingerprint : signer
      this.#keyUnknown = false
      if (this.#headCounts.has(sequence)) this.#keyBehind.set(sequence, this.#inForce)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#problem('damaged', sequence, error.message)
      this.#keyUnknown = true
    }
  }

  finish(): EvidenceReport {
    for (const head of this.#heads) this.#judgeHead(head)
    this.#judgeMissing()
    const why = this.#why()
    return {
      verdict: this.#problems.length > 0 ? 'failed' : this.#isTrusted ? 'verified' : 'not proven',
      why,
      records: this.#count,
      first: this.#first,
      last: this.#last === 0 ? null : this.#last,
      lastDigest: this.#lastDigest,
      signers: [...this.#signers],
      problems: this.#problems.slice(0, PROBLEMS_MAX),
    }
  }

  #judgeHead({ envelope, count }: { envelope: Envelope; count: number }): void {
    const signer = envelope.signatures[0]!.keyid
    const key = this.#keys.get(signer)
    if (key === undefined || !isSignedBy(envelope, key))
      this.#problem('changed', null, `the signed count of ${count} records is not signed by ${signer}`)
    // A key that was taken out of force signs no count any more; of a part that ends earlier the last key that is known has to have signed.
    const due = this.#keyBehind.get(count) ?? this.#inForce
    if (due !== undefined && signer !== due)
      this.#problem('foreign key', null, `the count of ${count} records is signed by ${signer}, and ${due} was in force`)
  }

  /** What signed counts name, and was not found. */
  #judgeMissing(): void {
    for (const [sequence, { at }] of this.#expected) {
      const atMs = Date.parse(at)
      if (atMs < this.#fromMs || atMs >= this.#untilMs) continue
      const kind = sequence > this.#last ? 'cut' : 'missing'
      this.#problem(kind, sequence, `a signed count names it, made at ${at}, and it is not there`)
    }
  }

  #why(): string {
    const [first] = this.#problems
    if (first !== undefined) return `${this.#problems.length} problems: ${first.text}`
    if (this.#count === 0) return 'there is no record'
    if (this.#isTrusted) return `${this.#count} records, each as it was signed, by the key of that fingerprint`
    if (this.#fingerprint === undefined)
      return 'whose key has to sign was not said: give --fingerprint, from the recovery sheet or a digest, and not from here'
    this.#problem('foreign key', null, `no record is signed by ${this.#fingerprint}`)
    return this.#problems[0]!.text
  }

  #problem(kind: EvidenceProblemKind, sequence: number | null, text: string): void {
    this.#problems.push({ kind, sequence, text })
  }
}

function keysByFingerprint(texts: readonly string[]): Map<string, KeyObject> {
  const keys = new Map<string, KeyObject>()
  for (const text of texts) {
    const key = publicKey(text)
    if (key !== undefined) keys.set(fingerprintOf(key), key)
  }
  return keys
}

function publicKey(text: string): KeyObject | undefined {
  try {
    return createPublicKey(text)
  } catch {
    return undefined
  }
}
