import { createHash } from 'node:crypto'
import { z } from 'zod'
import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import { formatLsn } from '../postgres/lsn.ts'
import { listBackupIds, readManifest, type BackupManifest } from './backups.ts'
import { keyedName } from './key-ring.ts'
import { verdictComponentPrefix, verdictKey } from './layout.ts'
import type { Repository } from './repository.ts'
import { damaged, getRecord, putObject } from './sealed-object.ts'

// What verifications found (docs/format.md, "Verdicts").

/** How long a verdict holds unless said otherwise. */
export const VERDICT_DAYS = 7
const DAY_MS = 24 * 3600 * 1000
/** Clocks of two hosts may disagree by so much; a verdict from further in the future would be green for too long. */
const CLOCK_SKEW_MS = 5 * 60 * 1000

const time = z.iso.datetime({ precision: 3 })

const checkSchema = z.object({
  name: z.string(),
  verdict: z.enum(['verified', 'failed', 'not proven', 'skipped']),
  expected: z.string(),
  found: z.string(),
  seconds: z.number(),
})
/** One thing that a verification looked at. Skipped: what it depends on had failed. */
export type Check = z.infer<typeof checkSchema>

export const verdictSchema = z.object({
  format: z.literal(1),
  backup: z.string(),
  component: z.string(),
  verdict: z.enum(['verified', 'failed', 'not proven']),
  by: z.enum(['read', 'restore']),
  target: z.enum(['backup', 'latest', 'time', 'lsn', 'xid', 'name']).nullable(),
  reached: z.object({ timeline: z.number().int(), lsn: z.string() }).nullable(),
  fingerprint: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .nullable(),
  at: time,
  expires: time,
  seconds: z.number(),
  checks: z.array(checkSchema),
  software: z.object({ resus: z.string(), node: z.string(), postgres: z.string().nullable() }),
})
export type Verdict = z.infer<typeof verdictSchema>

/** The object of a verdict, newest first in lists. `damaged`: it cannot be read, and proves nothing. */
export type StoredVerdict =
  | { readonly key: string; readonly atMs: number; readonly verdict: Verdict; readonly damaged?: undefined }
  | { readonly key: string; readonly atMs: number; readonly verdict?: undefined; readonly damaged: Failure }

/** What may be believed of a backup now. */
export interface Standing {
  readonly verdict: Verdict['verdict']
  /** The verdict that decides; undefined when there is none. It may have expired. */
  readonly decidedBy: Verdict | undefined
  /** Why a backup that was proven is not proven now, and what was damaged. */
  readonly remarks: readonly string[]
}

/** A backup that a restore has proven; `current` until the verdict expires. */
export interface ProvenBackup {
  readonly backup: string
  readonly verdict: Verdict
  readonly current: boolean
}

/** When a verdict that is made now expires. */
export function verdictExpiry(atMs: number, days = VERDICT_DAYS): string {
  return new Date(atMs + days * DAY_MS).toISOString()
}

/** Keeps a verdict under a new name. It is durable when this resolves. Throws what the storage throws. */
export async function putVerdict(repository: Repository, verdict: Verdict, signal?: AbortSignal): Promise<string> {
  // What cannot be read back must not be kept.
  const head = verdictSchema.parse(JSON.parse(JSON.stringify(verdict)))
  const { storage, ring } = repository
  const name = verdictKey(keyedName(ring, 'component', verdict.component), verdict.backup, Date.parse(verdict.at))
  await putObject(storage, ring, { kind: 'verdict', name, head }, signal === undefined ? {} : { signal })
  return name
}

/** All verdicts on a backup, newest first; those that are damaged are among them, by the time in their names. */
export async function listVerdicts(repository: Repository, component: string, backup: string): Promise<StoredVerdict[]> {
  return await readVerdicts(repository, await verdictKeys(repository, component, backup))
}

/** What verdicts (newest first, as listed) say of a backup at this time. Only a restore proves; damage proves nothing. */
export function judgeBackup(verdicts: readonly StoredVerdict[], manifest: BackupManifest, nowMs: number): Standing {
  const remarks = verdicts.flatMap(({ damaged: failure }) => (failure === undefined ? [] : [failure.message]))
  const readable = verdicts.flatMap(({ verdict }) => (verdict === undefined ? [] : [verdict]))
  const [newest] = readable
  if (newest?.verdict === 'failed') return { verdict: 'failed', decidedBy: newest, remarks }
  const decidedBy = readable.find(({ by }) => by === 'restore')
  if (decidedBy === undefined || decidedBy.verdict !== 'verified') return { verdict: 'not proven', decidedBy, remarks }
  const doubts = [...doubtsOf(decidedBy, manifest, nowMs)]
  const failed = readable.slice(0, readable.indexOf(decidedBy)).find(({ verdict }) => verdict === 'failed')
  if (failed !== undefined) doubts.push(`a later verification, at ${failed.at}, failed`)
  const place = verdicts.findIndex(({ verdict }) => verdict === decidedBy)
  if (verdicts.slice(0, place).some((stored) => stored.damaged !== undefined)) doubts.push('a later verdict is damaged')
  return { verdict: doubts.length === 0 ? 'verified' : 'not proven', decidedBy, remarks: [...remarks, ...doubts] }
}

function* doubtsOf(verdict: Verdict, manifest: BackupManifest, nowMs: number): Generator<string> {
  if (Date.parse(verdict.expires) <= nowMs) yield `the proof expired at ${verdict.expires}`
  if (Date.parse(verdict.at) > nowMs + CLOCK_SKEW_MS) yield `the proof is of ${verdict.at}, which is in the future`
  if (verdict.fingerprint !== backupFingerprint(manifest)) yield 'the proof is of a backup with another content'
}

/**
 * The backups of a component that a restore has proven, newest backup first, whether or not the proof has expired. Damaged verdicts and
 * backups whose manifest does not open are passed over. Reads lazily: take the first and the rest is never read.
 */
export async function* provenBackups(repository: Repository, component: string, nowMs: number): AsyncGenerator<ProvenBackup> {
  const keys = await verdictKeys(repository, component)
  const ids = await listBackupIds(repository, component)
  for (const backup of ids.toReversed()) {
    const own = keys.filter((key) => key.split('/').at(-2) === backup)
    if (own.length === 0) continue
    const verdicts = await readVerdicts(repository, own)
    const manifest = await openManifest(repository, component, backup)
    if (manifest === undefined) continue
    const proof = provenBy(verdicts, manifest)
    if (proof === undefined) continue
    yield { backup, verdict: proof, current: judgeBackup(verdicts, manifest, nowMs).verdict === 'verified' }
  }
}

/**
 * The newest backup that a restore has proven and whose proof holds now; when none does, the newest that was ever proven (`current` is
 * then false). Expiry keeps both this one and the first of `provenBackups`.
 */
export async function newestProvenBackup(
  repository: Repository,
  component: string,
  nowMs: number,
): Promise<ProvenBackup | undefined> {
  let newest: ProvenBackup | undefined
  for await (const proven of provenBackups(repository, component, nowMs)) {
    if (proven.current) return proven
    newest ??= proven
  }
  return newest
}

/** Names a backup by what it is made of: a verdict on another one under the same id proves nothing. */
export function backupFingerprint(manifest: BackupManifest): string {
  const digest = (bytes: Buffer | string) => createHash('sha256').update(bytes).digest('hex')
  const lines = [
    manifest.id,
    manifest.component,
    manifest.incarnation,
    manifest.branch,
    String(manifest.timeline),
    formatLsn(manifest.startLsn),
    formatLsn(manifest.stopLsn),
    manifest.tree.identity.toString('base64url'),
    digest(Buffer.from(manifest.control, 'base64')),
    digest(manifest.backupLabel),
    digest(manifest.tablespaceMap),
  ]
  return digest(lines.map((line) => `${line}\n`).join(''))
}

function provenBy(verdicts: readonly StoredVerdict[], manifest: BackupManifest): Verdict | undefined {
  for (const { verdict } of verdicts) {
    if (verdict?.verdict === 'failed') return undefined
    if (verdict?.by !== 'restore') continue
    return verdict.verdict === 'verified' && verdict.fingerprint === backupFingerprint(manifest) ? verdict : undefined
  }
  return undefined
}

async function verdictKeys(repository: Repository, component: string, backup?: string): Promise<string[]> {
  const prefix = verdictComponentPrefix(keyedName(repository.ring, 'component', component))
  const keys: string[] = []
  for await (const { key } of repository.storage.list(backup === undefined ? prefix : `${prefix}${backup}/`)) keys.push(key)
  return keys
}

async function readVerdicts(repository: Repository, keys: readonly string[]): Promise<StoredVerdict[]> {
  const verdicts: StoredVerdict[] = []
  for (const key of keys) {
    const stored = await readVerdict(repository, key)
    if (stored !== undefined) verdicts.push(stored)
  }
  return verdicts.toSorted((left, right) => right.atMs - left.atMs || (left.key < right.key ? 1 : -1))
}

/** Undefined when it was deleted meanwhile. */
async function readVerdict(repository: Repository, key: string): Promise<StoredVerdict | undefined> {
  try {
    const verdict = verdictSchema.safeParse(await getRecord(repository.storage, repository.ring, { kind: 'verdict', name: key }))
    if (!verdict.success) throw damaged(key, `its head is not that of a verdict: ${verdict.error.issues[0]?.message}`)
    if (verdict.data.backup !== key.split('/').at(-2)) throw damaged(key, `it is on another backup, "${verdict.data.backup}"`)
    return { key, atMs: Date.parse(verdict.data.at), verdict: verdict.data }
  } catch (error) {
    if (!(error instanceof Failure) || error.code.startsWith('STORAGE_')) throw error
    return error.code === 'OBJECT_MISSING' ? undefined : { key, atMs: endOfNamedSecond(key), damaged: error }
  }
}

/** Of what was written within one second a damaged object counts as the last: it may have taken back what the others say. */
function endOfNamedSecond(key: string): number {
  const parts = /\/(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-[^/]*$/.exec(key)?.slice(1).map(Number)
  if (parts === undefined) return Number.MAX_SAFE_INTEGER
  assert(parts.length === 6, 'a time has six parts')
  const [year, month, day, hour, minute, second] = parts as [number, number, number, number, number, number]
  return Date.UTC(year, month - 1, day, hour, minute, second, 999)
}

async function openManifest(repository: Repository, component: string, backup: string): Promise<BackupManifest | undefined> {
  try {
    return await readManifest(repository, component, backup)
  } catch (error) {
    if (!(error instanceof Failure) || error.code.startsWith('STORAGE_')) throw error
    return undefined
  }
}
