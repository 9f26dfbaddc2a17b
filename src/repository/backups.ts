import { z } from 'zod'
import { Failure } from '../errors.ts'
import { formatLsn, parseLsn } from '../postgres/lsn.ts'
import { keyedName } from './key-ring.ts'
import { BACKUP_PREFIX, backupKey, backupPrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import { damaged, getRecord, putObject, sealObject } from './sealed-object.ts'

// The root of a backup's manifest (docs/format.md, "Backups").

const lsn = z.string().transform(parseLsn)
const identity = z.string().transform((text): Buffer => Buffer.from(text, 'base64url'))

export const BACKUP_TYPES = ['full', 'incremental', 'differential'] as const
export type BackupType = (typeof BACKUP_TYPES)[number]

export const manifestSchema = z.object({
  format: z.literal(1),
  id: z.string(),
  component: z.string(),
  kind: z.literal('postgres'),
  type: z.enum(BACKUP_TYPES),
  previous: z.string().nullable(),
  sequence: z.number().int(),
  startedAt: z.string(),
  finishedAt: z.string(),
  server: z.object({
    version: z.string(),
    major: z.number().int(),
    systemIdentifier: z.string(),
    catalogVersion: z.number().int(),
    controlVersion: z.number().int(),
    segmentSize: z.number().int(),
    dataChecksums: z.boolean(),
    dataDirectory: z.string(),
    encoding: z.string(),
    libc: z.string().nullable(),
    collationVersions: z.array(z.string()),
    preloadLibraries: z.string(),
    settings: z.record(z.string(), z.string()),
    /** In no file. */
    commandLine: z.record(z.string(), z.string()),
    /** Null in backups of before these were recorded, and when they could not be found out. */
    versions: z
      .object({
        glibc: z.string().nullable(),
        icu: z.string().nullable(),
        icuCollations: z.string().nullable(),
        sessionPreloadLibraries: z.string(),
        localPreloadLibraries: z.string(),
        databases: z.array(
          z.object({
            name: z.string(),
            provider: z.string(),
            collate: z.string(),
            collationVersion: z.string().nullable(),
            actualVersion: z.string().nullable(),
            extensions: z.array(z.object({ name: z.string(), version: z.string() })).nullable(),
          }),
        ),
      })
      .nullable()
      .default(null),
  }),
  incarnation: z.string(),
  branch: z.string(),
  timeline: z.number().int(),
  startLsn: lsn,
  stopLsn: lsn,
  /** Time of the last moment that the backup surely holds, by the server's clock. */
  stopTime: z.string(),
  backupLabel: z.string(),
  tablespaceMap: z.string(),
  tablespaces: z.array(z.object({ oid: z.string(), path: z.string() })),
  inPlaceTablespaces: z.array(z.string()).default([]),
  /** What the cluster needs beside its data directory; null when that is nothing. */
  configuration: z
    .object({
      directory: z.string(),
      dataDirectory: z.string(),
      config: z.string(),
      hba: z.string(),
      ident: z.string(),
      settings: z.array(z.object({ name: z.string(), path: z.string() })),
      problems: z.array(z.object({ path: z.string(), problem: z.string() })),
    })
    .nullable()
    .default(null),
  control: z.string(),
  tree: z.object({ identity, kind: z.union([z.literal(5), z.literal(6)]) }),
  defaults: z.object({ fileMode: z.number(), directoryMode: z.number(), uid: z.number(), gid: z.number() }),
  totals: z.object({
    files: z.number(),
    bytes: z.number(),
    bytesRead: z.number(),
    bytesStored: z.number(),
    walBytesStored: z.number(),
    bytesReused: z.number(),
    pagesChecked: z.number(),
    corruptPages: z.number(),
  }),
  corruptPages: z.array(z.object({ path: z.string(), block: z.number() })),
  passedOver: z.array(z.object({ path: z.string(), why: z.string() })).default([]),
})
export type BackupManifest = z.infer<typeof manifestSchema>

/** In the place of a manifest: the run that wanted this name was gone for so long that what it refers to may be deleted. No backup. */
const closedSchema = z.object({ format: z.literal(1), id: z.string(), closed: z.iso.datetime() })

/**
 * Publishes a backup: from here on it exists. Everything that it refers to must be durable. Throws BACKUP_ABORTED when an expiry has
 * closed its name.
 */
export async function putManifest(repository: Repository, manifest: BackupManifest, signal: AbortSignal): Promise<void> {
  try {
    await putObject(repository.storage, repository.ring, manifestObject(repository, manifest), { signal })
  } catch (cause) {
    if (!(cause instanceof Failure) || cause.code !== 'OBJECT_EXISTS') throw cause
    throw new Failure('BACKUP_ABORTED', `this run stood still for so long that an expiry has closed the name of its backup`, {
      hint: 'run the backup again: it stores only what is missing',
      cause,
    })
  }
}

/** Closes the name of a backup to the run that wanted it; false when it is published, or closed already. */
export async function closeBackup(
  repository: Repository,
  backup: { folder: string; id: string; nowMs: number },
  signal: AbortSignal,
): Promise<boolean> {
  const head = { format: 1, id: backup.id, closed: new Date(backup.nowMs).toISOString() }
  try {
    const name = backupKey(backup.folder, backup.id)
    await putObject(repository.storage, repository.ring, { kind: 'backup', name, head }, { signal })
    return true
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_EXISTS') return false
    throw error
  }
}

/** What lies under the name of a backup. */
export type BackupObject =
  { readonly kind: 'backup'; readonly manifest: BackupManifest } | { readonly kind: 'closed'; readonly closedMs: number }

/** Reads the object of a backup. Throws OBJECT_MISSING, OBJECT_DAMAGED. */
export async function readBackupObject(repository: Repository, key: string): Promise<BackupObject> {
  const head = await getRecord(repository.storage, repository.ring, { kind: 'backup', name: key })
  const closed = closedSchema.safeParse(head)
  if (closed.success) return { kind: 'closed', closedMs: Date.parse(closed.data.closed) }
  const manifest = manifestSchema.safeParse(head)
  if (manifest.success) return { kind: 'backup', manifest: manifest.data }
  throw damaged(key, `its head is not that of a backup: ${manifest.error.issues[0]?.message}`)
}

/** The names of all objects of backups, of all components. */
export async function listBackupKeys(repository: Repository, signal: AbortSignal): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of repository.storage.list(BACKUP_PREFIX, { signal })) keys.push(key)
  return keys
}

/** How many bytes the object of a manifest will have. */
export async function manifestBytes(repository: Repository, manifest: BackupManifest): Promise<number> {
  let bytes = 0
  for await (const piece of sealObject(repository.ring, manifestObject(repository, manifest))) bytes += piece.length
  return bytes
}

function manifestObject(repository: Repository, manifest: BackupManifest) {
  const head = {
    ...manifest,
    startLsn: formatLsn(manifest.startLsn),
    stopLsn: formatLsn(manifest.stopLsn),
    tree: { ...manifest.tree, identity: manifest.tree.identity.toString('base64url') },
  }
  // What cannot be read back must not be published.
  manifestSchema.parse(JSON.parse(JSON.stringify(head)))
  return { kind: 'backup' as const, name: manifestName(repository, manifest.component, manifest.id), head }
}

/** Names of a component's backups, oldest first; some may be closed, and be no backups: only reading them tells. */
export async function listBackupIds(repository: Repository, component: string): Promise<string[]> {
  const prefix = backupPrefix(keyedName(repository.ring, 'component', component))
  const ids: string[] = []
  for await (const { key } of repository.storage.list(prefix)) ids.push(key.slice(prefix.length))
  return ids
}

/** The backup whose name is the latest, damaged or not. */
export async function newestBackupId(repository: Repository, component: string): Promise<string | undefined> {
  for (const id of (await listBackupIds(repository, component)).toReversed()) {
    try {
      await readManifest(repository, component, id)
      return id
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      if (error.code !== 'BACKUP_UNKNOWN') return id
    }
  }
  return undefined
}

/**
 * A component's backups, newest first. One that is damaged is passed over and told to `onDamaged`, so that it does not hide the others;
 * without that it throws OBJECT_DAMAGED.
 */
export async function listBackups(
  repository: Repository,
  component: string,
  onDamaged?: (failure: Failure) => void,
): Promise<BackupManifest[]> {
  const ids = await listBackupIds(repository, component)
  const manifests: BackupManifest[] = []
  for (const id of ids.toReversed()) {
    try {
      manifests.push(await readManifest(repository, component, id))
    } catch (error) {
      // Closed, or deleted since it was listed.
      if (error instanceof Failure && error.code === 'BACKUP_UNKNOWN') continue
      if (onDamaged === undefined || !(error instanceof Failure) || error.code !== 'OBJECT_DAMAGED') throw error
      onDamaged(error)
    }
  }
  // By their numbers: clocks of two hosts may disagree.
  return manifests.toSorted((left, right) => right.sequence - left.sequence || (left.id < right.id ? 1 : -1))
}

/** Throws BACKUP_UNKNOWN, naming what there is; OBJECT_DAMAGED. */
export async function readManifest(repository: Repository, component: string, id: string): Promise<BackupManifest> {
  const name = manifestName(repository, component, id)
  try {
    const there = await readBackupObject(repository, name)
    if (there.kind === 'backup') return there.manifest
    throw new Failure('OBJECT_MISSING', `"${name}" was closed, and never was a backup`)
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'OBJECT_MISSING') throw error
    throw new Failure('BACKUP_UNKNOWN', `"${component}" has no backup "${id}"`, {
      hint: `"resus backups ${component}" lists those that there are`,
      cause: error,
    })
  }
}

/** The name of a backup's object. */
export function manifestName(repository: Repository, component: string, id: string): string {
  return backupKey(keyedName(repository.ring, 'component', component), id)
}
