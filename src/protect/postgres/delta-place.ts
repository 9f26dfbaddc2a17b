import { open, readdir, readFile, readlink, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Clock } from '../../clock.ts'
import { systemErrorCode } from '../../errors.ts'
import { parseControlFile } from '../../postgres/control-file.ts'
import { DISARMED_CONTROL, WAL_ASIDE } from '../../postgres/relation-file.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { TABLESPACE_MARK } from './data-directory.ts'

// A restore with `delta` goes over a cluster that is there. What is not known to be that cluster is never touched.

const CONTROL_PATH = 'global/pg_control'
/** What pg_wal holds besides WAL. */
const WAL_FURNITURE = new Set(['archive_status', 'summaries', 'resus_recovery'])
const TABLESPACE_VERSION = /^PG_\d+_\d+$/

interface DeltaPlace {
  readonly path: string
  /** Undefined for the data directory. */
  readonly tablespace: string | undefined
  /** The data directory. */
  readonly directory: string
  readonly manifest: BackupManifest
}

/** Why a place is not a stopped cluster, or a tablespace of it, that this backup is of; undefined when it is. Touches nothing. */
export async function whyNotDelta(place: DeltaPlace): Promise<string | undefined> {
  return place.tablespace === undefined ? await whyNotCluster(place) : await whyNotTablespace(place, place.tablespace)
}

async function whyNotCluster({ path, manifest }: DeltaPlace): Promise<string | undefined> {
  const { major, systemIdentifier } = manifest.server
  const version = await readFile(join(path, 'PG_VERSION'), 'utf8').catch(() => undefined)
  if (version === undefined) return 'it holds no cluster: there is no PG_VERSION in it'
  if (version.trim() !== String(major)) return `it holds a cluster of PostgreSQL ${version.trim()}, the backup is of ${major}`
  // One that is damaged, or gone, is what a delta is for.
  const control = await readFile(join(path, CONTROL_PATH)).catch(() => undefined)
  const found = control === undefined ? undefined : tryControl(control)
  if (found === undefined || String(found) === systemIdentifier) return undefined
  return `it holds another cluster: its system identifier is ${found}, the backup's is ${systemIdentifier}`
}

function tryControl(bytes: Buffer): bigint | undefined {
  try {
    return parseControlFile(bytes).systemIdentifier
  } catch {
    return undefined
  }
}

/** It has to be linked from this data directory: else it is some other cluster's. */
async function whyNotTablespace({ path, directory }: DeltaPlace, oid: string): Promise<string | undefined> {
  const link = await readlink(join(directory, 'pg_tblspc', oid)).catch(() => undefined)
  if (link !== path) return `it is not empty, and "${directory}" has it not as its tablespace ${oid}`
  const strange = (await readdir(path)).find((name) => !TABLESPACE_VERSION.test(name) && name !== TABLESPACE_MARK)
  return strange === undefined ? undefined : `it holds "${strange}", which belongs to no tablespace`
}

/**
 * Makes a cluster one that cannot be started, and sets its WAL aside; gives whether there was any. `pg_control` goes first, durably: from then on
 * whatever else is missing or half written is never taken for a cluster. It keeps another name, which says that it was us, until it is swept away.
 */
export async function disarmCluster(options: {
  readonly directory: string
  readonly clock: Clock
  readonly onNotice: (text: string) => void
}): Promise<boolean> {
  const { directory } = options
  await rename(join(directory, CONTROL_PATH), join(directory, DISARMED_CONTROL)).catch((error: unknown) => {
    if (systemErrorCode(error) !== 'ENOENT') throw error
  })
  await syncIfThere(dirname(join(directory, CONTROL_PATH)))
  await syncIfThere(directory)
  const wal = join(directory, 'pg_wal')
  if (!(await holdsWal(wal))) return false
  const time = new Date(options.clock.now()).toISOString().replaceAll(/[-:.]/g, '')
  const aside = join(directory, `${WAL_ASIDE}${time}`)
  await rename(wal, aside)
  await syncIfThere(directory)
  options.onNotice(
    `the WAL that was in "${wal}" is in "${aside}" now. What of it follows on the repository's WAL was stored there before, unless that was not wanted; keep the rest until the restored cluster is what you want`,
  )
  return true
}

async function holdsWal(directory: string): Promise<boolean> {
  for (const name of await namesIn(directory)) {
    if (!WAL_FURNITURE.has(name)) return true
    if (name !== 'resus_recovery' && (await namesIn(join(directory, name))).length > 0) return true
  }
  return false
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return []
    throw error
  }
}

async function syncIfThere(path: string): Promise<void> {
  const directory = await open(path, 'r').catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  })
  if (directory === undefined) return
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
