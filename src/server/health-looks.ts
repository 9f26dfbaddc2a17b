import { randomUUID, X509Certificate } from 'node:crypto'
import { constants } from 'node:fs'
import { open, readFile, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Configuration } from '../config/configuration.ts'
import { systemErrorCode } from '../errors.ts'
import type { DatabaseHealth } from '../protect/postgres/health.ts'
import { observeFigures, type Observation, type Threshold } from '../recovery/health.ts'
import type { ComponentPicture } from './catalogue.ts'
import type { ReceiverPicture } from './receivers.ts'

// One look at each thing that is watched: what it found, in figures and words.

export type Figures = Readonly<Record<string, number | null>>

export interface Looked {
  readonly observation: Observation
  readonly figures: Figures
}

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants

/** Beyond these, something is slow, short or late, and not down. */
const MEBIBYTE = 1024 * 1024
const DATABASE_THRESHOLDS: readonly Threshold[] = [
  { name: 'connectionsUsedPercent', unit: '%', most: 90 },
  { name: 'longestTransactionSeconds', unit: 's', most: 3600 },
  { name: 'locksWaiting', unit: 'sessions', most: 20 },
  { name: 'replayLagSeconds', unit: 's', most: 60 },
  { name: 'checksumFailures', unit: 'pages', most: 0 },
]
const RECEIVER_THRESHOLDS: readonly Threshold[] = [{ name: 'behindBytes', unit: 'bytes', most: 1024 * MEBIBYTE }]
const STORAGE_THRESHOLDS: readonly Threshold[] = [
  { name: 'freePercent', unit: '%', least: 5 },
  { name: 'daysLeft', unit: 'days', least: 14 },
]
const CLOCK_THRESHOLDS: readonly Threshold[] = [
  { name: 'databaseOffsetSeconds', unit: 's', most: 5 },
  { name: 'storageOffsetSeconds', unit: 's', most: 5 },
]
const CERTIFICATE_THRESHOLDS: readonly Threshold[] = [{ name: 'daysLeft', unit: 'days', least: 30 }]
/** Of any tier: a daily backup that is an hour late (MON-07). */
export const STALE_BACKUP_MS = 25 * 3_600_000
const DAY_MS = 24 * 3_600_000

export function lookedAtDatabase(health: DatabaseHealth): Looked {
  const figures = {
    connectionsUsed: health.connectionsUsed,
    connectionsMax: health.connectionsMax,
    connectionsUsedPercent: Math.round((100 * health.connectionsUsed) / Math.max(1, health.connectionsMax)),
    longestQuerySeconds: health.longestQuerySeconds,
    longestTransactionSeconds: health.longestTransactionSeconds,
    locksWaiting: health.locksWaiting,
    replayLagSeconds: health.replayLagSeconds,
    standbyLagSecondsMost: most(health.standbys.map(({ lagSeconds }) => lagSeconds)),
    slotRetainedBytesMost: most(health.slots.map(({ retainedBytes }) => retainedBytes)),
    oldestFrozenXidAge: health.oldestFrozenXidAge,
    archiverFailures: health.archiverFailures,
    checksumFailures: health.checksumFailures,
  }
  return judged(figures, DATABASE_THRESHOLDS)
}

/** `live`: what the receivers' process of this node says; undefined where another node receives. */
export function lookedAtReceiver({ status }: ComponentPicture, live: ReceiverPicture | undefined): Looked {
  const figures = { behindBytes: status?.receiver.behindBytes ?? null }
  if (live === undefined && status?.receiver.active === true) return judged(figures, RECEIVER_THRESHOLDS)
  if (live?.state !== 'receiving') return failed(live?.problem ?? 'nobody receives its WAL', figures)
  const [alarm] = Object.entries(live.alarms).filter(([code]) => code !== 'SERVER_SETTING')
  if (alarm !== undefined) return { observation: { kind: 'slow', why: `${alarm[0]}: ${alarm[1]}` }, figures }
  return judged(figures, RECEIVER_THRESHOLDS)
}

/** Undefined while nobody has read the repository: what could not be read says nothing of backups. */
export function lookedAtBackup({ backups, asOf }: ComponentPicture, nowMs: number): Looked | undefined {
  if (asOf === null) return undefined
  const [newest] = backups
  if (newest === undefined) return failed('there is no backup', {})
  const ageSeconds = Math.max(0, Math.round((nowMs - Date.parse(newest.finishedAt)) / 1000))
  return judged({ ageSeconds }, [{ name: 'ageSeconds', unit: 's', most: STALE_BACKUP_MS / 1000 }])
}

/** What no restore has proven is never well. */
export function lookedAtProof({ status }: ComponentPicture, nowMs: number): Looked | undefined {
  if (status === null || status.backups === 0) return undefined
  const { proven, verdict, verdictRemarks } = status
  const holdsSeconds = proven === null ? null : Math.round((Date.parse(proven.expires) - nowMs) / 1000)
  const figures = { holdsSeconds }
  if (verdict === 'failed') return failed(verdictRemarks[0] ?? 'the newest backup has failed its proof', figures)
  if (proven !== null && proven.current && (holdsSeconds ?? 0) > 0) return { observation: { kind: 'good' }, figures }
  const why = proven === null ? 'no backup was proven by a restore yet' : `the proof of ${proven.at} holds no more`
  return { observation: { kind: 'slow', why }, figures }
}

/** Whether it answers, and how much room it has. */
export async function lookAtStorage({ repository }: Configuration, daysLeft: number | null): Promise<Looked> {
  const [storage] = repository.storages
  if (storage === undefined) return failed('there is no storage', {})
  try {
    const { bsize, blocks, bavail } = await statfs(storage.path)
    const figures = {
      freeBytes: bsize * bavail,
      sizeBytes: bsize * blocks,
      freePercent: Math.floor((100 * bavail) / Math.max(1, blocks)),
      daysLeft: daysLeft === null ? null : Math.floor(daysLeft),
    }
    return judged(figures, STORAGE_THRESHOLDS)
  } catch (error) {
    const code = systemErrorCode(error)
    if (code === undefined) throw error
    return failed(`"${storage.path}": ${code}`, {})
  }
}

/** Seconds that the storage's clock differs from ours; null when it cannot be asked. On a mount it is that of the server that has it. */
export async function storageOffsetSeconds({ repository }: Configuration): Promise<number | null> {
  const [storage] = repository.storages
  if (storage === undefined) return null
  const path = join(storage.path, '.staging', `clock-${randomUUID()}`)
  try {
    const before = Date.now()
    // Whoever may write there may have put a link in any place that we could be known to take.
    await using file = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    await file.write('.')
    const { mtimeMs } = await file.stat()
    const after = Date.now()
    // A file system may know whole seconds alone.
    const early = Math.max(0, before - mtimeMs)
    const late = Math.max(0, mtimeMs - after)
    return Math.round(Math.max(early, late) / 1000)
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error
    return null
  } finally {
    await rm(path, { force: true }).catch(() => undefined)
  }
}

/** Of clocks; undefined when none could be asked. */
export function lookedAtClocks(figures: {
  readonly databaseOffsetSeconds: number | null
  readonly storageOffsetSeconds: number | null
}): Looked | undefined {
  if (figures.databaseOffsetSeconds === null && figures.storageOffsetSeconds === null) return undefined
  return judged(figures, CLOCK_THRESHOLDS)
}

/** A certificate of ours, in a file. */
export async function lookAtCertificate(path: string, nowMs: number): Promise<Looked> {
  try {
    return lookedAtCertificate(new X509Certificate(await readFile(path)).validToDate.getTime(), nowMs)
  } catch (error) {
    return failed(`"${path}" cannot be read as a certificate: ${systemErrorCode(error) ?? String(error)}`, {})
  }
}

/** By when it ends. */
export function lookedAtCertificate(validToMs: number, nowMs: number): Looked {
  const daysLeft = Math.floor((validToMs - nowMs) / DAY_MS)
  if (validToMs <= nowMs) return failed(`it expired at ${new Date(validToMs).toISOString()}`, { daysLeft })
  return judged({ daysLeft }, CERTIFICATE_THRESHOLDS)
}

function judged(figures: Figures, thresholds: readonly Threshold[]): Looked {
  return { observation: observeFigures(figures, thresholds), figures }
}

export function failed(why: string, figures: Figures): Looked {
  return { observation: { kind: 'failed', why }, figures }
}

function most(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null)
  return known.length === 0 ? null : Math.max(...known)
}
