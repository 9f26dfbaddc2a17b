import { randomBytes } from 'node:crypto'
import type { Lsn } from '../postgres/lsn.ts'

// The names of a repository's objects (docs/format.md, "Names").

export const DESCRIPTOR_KEY = 'resus.json'
export const SYSTEM_KEY = 'system'
export const PACK_PREFIX = 'packs/'
export const INDEX_PREFIX = 'index/'
export const KEY_PREFIX = 'keys/'
export const LEASE_PREFIX = 'leases/'
export const MARK_PREFIX = 'marks/'
export const BACKUP_PREFIX = 'backups/'
export const EXPIRED_PREFIX = 'expired/'
export const DAMAGE_PREFIX = 'damage/'
export const CONTROL_PREFIX = 'control/'
export const AUTHORITY_PREFIX = 'authority/'
export const EVIDENCE_PREFIX = 'evidence/'
/** Of a self-test of the storage: in no folder, so that none is made for it, and of no meaning. */
export const PROBE_PREFIX = 'probe-'

export function keySlotKey(key: string, slot: string): string {
  return `${KEY_PREFIX}${key}.${slot}.json`
}

export function packKey(pack: string): string {
  return `${PACK_PREFIX}${pack.slice(0, 2)}/${pack}`
}

export function indexKey(index: string): string {
  return `${INDEX_PREFIX}${index}`
}

export function backupPrefix(component: string): string {
  return `${BACKUP_PREFIX}${component}/`
}

export function backupKey(component: string, backup: string): string {
  return backupPrefix(component) + backup
}

/** Says that a backup was there and was expired. */
export function expiredKey(component: string, backup: string): string {
  return `${EXPIRED_PREFIX}${component}/${backup}`
}

export function walComponentPrefix(component: string): string {
  return `wal/${component}/`
}

/** Where a branch's WAL lies; `component`, `incarnation` and `branch` are their keyed names. */
export interface BranchPath {
  readonly component: string
  readonly incarnation: string
  readonly branch: string
}

export function branchPrefix(path: BranchPath): string {
  return `wal/${path.component}/${path.incarnation}/${path.branch}/`
}

export function gapPrefix(path: BranchPath): string {
  return `gaps/${path.component}/${path.incarnation}/${path.branch}/`
}

export function gapKey(path: BranchPath, range: { from: Lsn; to: Lsn }): string {
  const hex = (lsn: Lsn) => lsn.toString(16).padStart(16, '0')
  return `${gapPrefix(path)}${hex(range.from)}-${hex(range.to)}`
}

export function verdictComponentPrefix(component: string): string {
  return `verdicts/${component}/`
}

export function verdictPrefix(component: string, backup: string): string {
  return `${verdictComponentPrefix(component)}${backup}/`
}

/** A new verdict's name. */
export function verdictKey(component: string, backup: string, timeMs: number): string {
  return `${verdictPrefix(component, backup)}${timeName(timeMs)}-${randomId()}`
}

/** `20261121T023700Z`: UTC, so that names sort by time. */
export function timeName(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 19).replaceAll(/[-:]/g, '')}Z`
}

/**
 * A new backup's id: its start, to the millisecond (three of the hex digits), so that ids sort by time, and three random hex digits.
 */
export function backupId(timeMs: number): string {
  const milliseconds = (timeMs % 1000).toString(16).padStart(3, '0')
  return `${timeName(timeMs)}-${milliseconds}${randomBytes(2).toString('hex').slice(1)}`
}

/** A new random id of 32 hex digits: packs, index objects, leases, marks, verdicts. */
export function randomId(): string {
  return randomBytes(16).toString('hex')
}

/** A new pack's id: random, and at its end, where the run that makes it is known, the digits that name that run. */
export function packId(runSuffix = ''): string {
  return randomId().slice(runSuffix.length) + runSuffix
}
