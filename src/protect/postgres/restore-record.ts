import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { systemErrorCode } from '../../errors.ts'
import type { TreeDefaults } from '../../repository/tree.ts'
import { isRoot, replaceFile, syncDirectory } from './durable-file.ts'
import { RECOVERY_ACTIONS } from './recovery-target.ts'
import { finishPlaces, isFinished, placesOf } from './restore-place.ts'
import type { RestoreReport } from './restore.ts'

// What was asked for by its own name and is whole: asked for again, it is reported, and not refused because its directory is not empty. In our own state directory: what
// lies in the restored one the server's user can change, and root would believe it.

const DIRECTORY = 'restores'
const RECORDS_KEPT = 100

const tablespaceSchema = z.object({ oid: z.string(), source: z.string(), path: z.string() })
const recordSchema = z.object({
  request: z.string(),
  /** Which directory it was: another one of this name is another. */
  device: z.number(),
  inode: z.number(),
  defaults: z.object({ fileMode: z.number(), directoryMode: z.number(), uid: z.number(), gid: z.number() }),
  report: z.object({
    backup: z.string(),
    target: z.string(),
    directory: z.string(),
    bytesWritten: z.number(),
    bytesKept: z.number(),
    startCommand: z.string(),
    action: z.enum(RECOVERY_ACTIONS),
    tablespaces: z.array(tablespaceSchema),
    seconds: z.number(),
    timeline: z.number(),
    walEndLsn: z.string(),
    lastRecordEnd: z.string().nullable(),
    acknowledgedLsn: z.string().nullable(),
    bytesLost: z.number().nullable(),
    localWalBytes: z.number(),
    safetyCopy: z
      .object({
        path: z.string(),
        bytes: z.number(),
        files: z.number(),
        unreadable: z.array(z.object({ path: z.string(), offset: z.number(), bytes: z.number() })),
      })
      .nullable(),
    plan: z.string(),
  }),
})

export interface RestoreRequest {
  readonly stateDirectory: string
  readonly directory: string
  /** The name of what was asked for; the same name is the same restore. */
  readonly request: string
}

/** Says what will be reported when this restore is whole. Durable when it resolves: put `pg_control` behind it. */
export async function keepRestore(
  where: RestoreRequest,
  { report, defaults }: { readonly report: RestoreReport; readonly defaults: TreeDefaults },
): Promise<void> {
  const folder = join(where.stateDirectory, DIRECTORY)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const { dev: device, ino: inode } = await stat(where.directory)
  const { fileMode, directoryMode, uid, gid } = defaults
  const record = { request: where.request, device, inode, defaults: { fileMode, directoryMode, uid, gid }, report }
  await replaceFile(join(folder, fileOf(where)), JSON.stringify(recordSchema.parse(record)))
  await syncDirectory(where.stateDirectory)
  await forgetOld(folder)
}

/** The report of a restore that is whole, when it is the one that is asked for; undefined when it is to be done. What was left of its last step is done first. */
export async function wholeRestore(where: RestoreRequest): Promise<RestoreReport | undefined> {
  const { directory, request } = where
  const record = await readRecord(join(where.stateDirectory, DIRECTORY, fileOf(where)))
  if (record === undefined || record.request !== request || record.report.directory !== directory) return undefined
  const there = await stat(directory).catch(() => undefined)
  if (there?.ino !== record.inode || there.dev !== record.device) return undefined
  const state = await isFinished(directory)
  if (state === 'no') return undefined
  // Root has given it away already, with all that comes before that.
  if (state === 'but for its marks' && !isRoot()) {
    await finishPlaces(placesOf(directory, record.report.tablespaces), record.defaults)
  }
  return record.report
}

function fileOf({ directory, request }: RestoreRequest): string {
  return `${createHash('sha256')
    .update(JSON.stringify([directory, request]))
    .digest('hex')
    .slice(0, 32)}.json`
}

async function readRecord(path: string): Promise<z.infer<typeof recordSchema> | undefined> {
  try {
    return recordSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    // One that is not there, or none: then the directory alone decides, as for any restore.
    if (systemErrorCode(error) !== undefined || error instanceof SyntaxError || error instanceof z.ZodError) return undefined
    throw error
  }
}

async function forgetOld(folder: string): Promise<void> {
  const aged = await Promise.all(
    (await readdir(folder)).map(async (name) => {
      const path = join(folder, name)
      return { path, ms: (await stat(path).catch(() => undefined))?.mtimeMs ?? 0 }
    }),
  )
  const old = aged.toSorted((left, right) => right.ms - left.ms).slice(RECORDS_KEPT)
  for (const { path } of old) await rm(path, { force: true })
}
