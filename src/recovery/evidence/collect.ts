import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { listEvidence, listRecords } from '../../repository/evidence-objects.ts'
import type { Repository } from '../../repository/repository.ts'
import type { CallOptions } from '../../storage/storage.ts'
import { writeBundle, type BundledRecord } from './bundle.ts'
import { newestRecord, readEnvelope, readRecord } from './chain.ts'
import { signHead } from './head.ts'
import { PeriodReport } from './period-report.ts'
import type { HeadPredicate } from './record.ts'
import { recordPage } from './record-page.ts'
import { publicKeyText, readSigningKey } from './signing-key.ts'
import type { FoundRecord } from './verify-evidence.ts'

// The records of a repository, for a verifier, and as a bundle.

/** All records, by ascending number; one that does not open is found as what is wrong with it. */
export async function* repositoryRecords(repository: Repository, call: CallOptions = {}): AsyncGenerator<FoundRecord> {
  for (const sequence of await listRecords(repository, call)) {
    const envelope = await readEnvelope(repository, sequence, call).catch((error: unknown) => {
      if (error instanceof Failure && (error.code === 'OBJECT_DAMAGED' || error.code === 'EVIDENCE_UNKNOWN')) return error
      throw error
    })
    yield { sequence, envelope }
  }
}

/** The public keys of all keys that the repository has, in PEM by fingerprint. A key that does not open is left out: what it signed cannot be checked then, and a verifier says so. */
export async function publicKeys(repository: Repository, call: CallOptions = {}): Promise<Map<string, string>> {
  const keys = new Map<string, string>()
  for (const name of await listEvidence(repository, 'keys/', call)) {
    const fingerprint = name.slice('keys/'.length)
    const key = await readSigningKey(repository, fingerprint, call).catch((error: unknown) => {
      if (error instanceof Failure && !error.code.startsWith('STORAGE_')) return undefined
      throw error
    })
    if (key !== undefined) keys.set(fingerprint, publicKeyText(key))
  }
  return keys
}

export interface Bundling {
  readonly repository: Repository
  readonly directory: string
  /** By when the records were made; all when undefined. */
  /** All that has to be recoverable, for the report. */
  readonly components: readonly string[]
  readonly fromMs?: number | undefined
  readonly untilMs?: number | undefined
  readonly clock: Clock
  readonly signal: AbortSignal
}

/**
 * Writes a bundle of the records of a period. Throws EVIDENCE_UNKNOWN when there is none, OBJECT_DAMAGED when one does not open (a bundle that leaves it out would not verify),
 * DIRECTORY_NOT_EMPTY, and what storage and file system say.
 */
export async function bundleEvidence(bundling: Bundling): Promise<{ readonly files: number; readonly records: number }> {
  const { repository, directory, clock, signal } = bundling
  const newest = await newestRecord(repository, { signal })
  if (newest === undefined) throw none('no drill or recovery has left a record yet')
  const records = await recordsUpTo(repository, newest.sequence, signal)
  const part = { records, from: instant(bundling.fromMs), until: instant(bundling.untilMs) }
  const { envelope: head } = await signHead({ repository, clock, call: { signal } }, newest, part)
  const report = new PeriodReport({ system: newest.predicate.system, ...bundling })
  const { files } = await writeBundle(directory, {
    system: newest.predicate.system,
    head,
    keys: await publicKeys(repository, { signal }),
    records: bundled(bundling, newest.sequence, report),
    report: () => report.page(clock.now()),
  })
  return { files, records: report.count }
}

/** In a first pass: so that the head names each record, also those that are left out. */
async function recordsUpTo(repository: Repository, last: number, signal: AbortSignal): Promise<HeadPredicate['records']> {
  const records: HeadPredicate['records'] = []
  for (let sequence = 1; sequence <= last; sequence += 1) {
    const { digest, predicate } = await readRecord(repository, sequence, { signal })
    records.push({ digest, at: predicate.madeAt })
  }
  return records
}

function instant(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString()
}

async function* bundled(bundling: Bundling, last: number, report: PeriodReport): AsyncGenerator<BundledRecord> {
  const { repository, fromMs = -Infinity, untilMs = Infinity, signal } = bundling
  let inside = 0
  for (let sequence = 1; sequence <= last; sequence += 1) {
    const record = await readRecord(repository, sequence, { signal })
    const madeMs = Date.parse(record.predicate.madeAt)
    if (madeMs < fromMs || madeMs >= untilMs) continue
    inside += 1
    report.add(record)
    yield { sequence, envelope: record.envelope, html: recordPage(record) }
  }
  if (inside === 0) throw none('no record was made in that time')
}

function none(why: string): Failure {
  return new Failure('EVIDENCE_UNKNOWN', why, { hint: '"resus evidence list" shows the records that there are' })
}
