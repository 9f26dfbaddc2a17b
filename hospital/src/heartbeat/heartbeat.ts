import { lstat, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Database, Transaction } from '../database/database.ts'
import { makeDirectory, syncDirectory, writeDurably } from '../durable.ts'
import { record } from '../events/record.ts'
import { GROUP_FACILITY } from '../facilities/users.ts'
import { pause } from '../pause.ts'

const ACTOR = 'Worker/heartbeat'
const STREAM = 'Heartbeat/1'
const DIRECTORY = 'heartbeat'
const BEAT_MS = 1_000
/** An hour of files. */
const FILES_KEPT = 3_600
/** Of two services on one database, one beats. Any number that nobody else takes. */
const BEAT_LOCK = 7_310_032
const FILE_NAME = /^(\d{1,15})\.json$/

export interface BeatOptions {
  readonly database: Database
  readonly filesDirectory: string
  readonly filesKept?: number
  /** The beat before this one, if this process made it. */
  readonly previous?: number | undefined
}

/** Beats once a second until it is told to end. A beat that fails is reported, and the next one is another. */
export async function keepBeating(
  options: BeatOptions & { readonly signal: AbortSignal; readonly report: (line: string) => void },
): Promise<void> {
  const { signal, report, filesDirectory, filesKept = FILES_KEPT } = options
  let previous: number | undefined
  while (!signal.aborted) {
    const startedMs = performance.now()
    try {
      const sequence = await beat({ ...options, previous })
      if (sequence !== undefined && previous === undefined) await pruneAll(filesDirectory, sequence - filesKept)
      previous = sequence
    } catch (error) {
      report(`heartbeat: ${error instanceof Error ? error.message : String(error)}`)
    }
    await pause(Math.max(0, BEAT_MS - (performance.now() - startedMs)), signal)
  }
}

/**
 * One heartbeat: the file first, durably, then the event, which projects the row. So files are never behind the database, and each of the three names the
 * others by the one number. Gives it; undefined when another process beats.
 */
export async function beat(options: BeatOptions): Promise<number | undefined> {
  const { database, filesDirectory, filesKept = FILES_KEPT, previous } = options
  return await database.transaction({ kind: 'worker', actor: ACTOR }, async (transaction) => {
    const { rows } = await transaction.client.query<{ taken: boolean }>('select pg_try_advisory_xact_lock($1) as taken', [
      BEAT_LOCK,
    ])
    if (rows[0]?.taken !== true) return undefined
    const last = await lastEvent(transaction)
    const sequence = (last?.sequence ?? 0) + 1
    const directory = join(filesDirectory, DIRECTORY)
    await makeDirectory(directory)
    if (previous !== sequence - 1 || (await isThere(join(directory, `${sequence}.json`)))) await setAsideFrom(directory, sequence)
    const content = { sequence, at: new Date().toISOString(), event: `${STREAM} version ${sequence}`, row: sequence }
    await writeDurably(join(directory, `${sequence}.json`), `${JSON.stringify(content)}\n`)
    await record(transaction, {
      stream: STREAM,
      expected: sequence - 1,
      type: 'Heartbeat',
      schemaVersion: 1,
      facility: GROUP_FACILITY,
      payload: { sequence, file: `${DIRECTORY}/${sequence}.json`, row: sequence },
    })
    await rm(join(directory, `${sequence - filesKept}.json`), { force: true })
    return sequence
  })
}

/** One of the three heartbeats: the last there is. */
export interface LastBeat {
  readonly sequence: number
  readonly at: Date
}

export interface Heartbeats {
  readonly event: LastBeat | undefined
  readonly row: LastBeat | undefined
  readonly file: LastBeat | undefined
}

/** The last heartbeat of each of the three, as far as this transaction sees; a file that cannot be read counts as none. */
export async function readHeartbeats(transaction: Transaction, filesDirectory: string): Promise<Heartbeats> {
  const row = await transaction.sql
    .selectFrom('heartbeats')
    .select(['sequence', 'at'])
    .orderBy('sequence', 'desc')
    .limit(1)
    .executeTakeFirst()
  return {
    event: await lastEvent(transaction),
    row: row === undefined ? undefined : { sequence: Number(row.sequence), at: row.at },
    file: await lastFile(join(filesDirectory, DIRECTORY)),
  }
}

async function lastEvent({ sql }: Transaction): Promise<LastBeat | undefined> {
  const found = await sql
    .selectFrom('events')
    .select(['version', 'at'])
    .where('stream', '=', STREAM)
    .orderBy('version', 'desc')
    .limit(1)
    .executeTakeFirst()
  return found === undefined ? undefined : { sequence: found.version, at: found.at }
}

const beatFile = z.object({ sequence: z.int().positive(), at: z.iso.datetime().transform((text) => new Date(text)) })

async function lastFile(directory: string): Promise<LastBeat | undefined> {
  for (const sequence of (await sequencesIn(directory)).toSorted((a, b) => b - a)) {
    const text = await readFile(join(directory, `${sequence}.json`), 'utf8').catch(() => '')
    const parsed = beatFile.safeParse(jsonIn(text))
    if (parsed.success && parsed.data.sequence === sequence) return parsed.data
  }
  return undefined
}

/**
 * Files from this number on are of a later instant than the database: it was restored to an earlier one, or a beat was killed between its file and its event.
 * They say how far the hospital once was, so they are kept, together, under another name.
 */
async function setAsideFrom(directory: string, sequence: number): Promise<void> {
  const ahead = (await sequencesIn(directory)).filter((each) => each >= sequence)
  if (ahead.length === 0) return
  const aside = `ahead-of-${sequence}-${new Date().toISOString().replaceAll(':', '')}`
  await mkdir(join(directory, aside))
  for (const each of ahead) await rename(join(directory, `${each}.json`), join(directory, aside, `${each}.json`))
  await syncDirectory(join(directory, aside))
  await syncDirectory(directory)
}

async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined
}

async function pruneAll(filesDirectory: string, upto: number): Promise<void> {
  const directory = join(filesDirectory, DIRECTORY)
  for (const each of await sequencesIn(directory)) {
    if (each <= upto) await rm(join(directory, `${each}.json`), { force: true })
  }
}

async function sequencesIn(directory: string): Promise<readonly number[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names.flatMap((name) => {
    const digits = FILE_NAME.exec(name)?.[1]
    return digits === undefined ? [] : [Number(digits)]
  })
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
