import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type pg from 'pg'
import { FindingList, type Check } from './verdict.ts'

interface Beat {
  readonly sequence: number
  readonly at: Date
}

const LAST_ROW = 'select sequence, at from hospital.heartbeats order by sequence desc limit 1'
const LAST_EVENT =
  "select version as sequence, at from hospital.events where stream = 'Heartbeat/1' order by version desc limit 1"
/** A beat writes its file first, so a file may be one ahead of the others. */
const FILE_AHEAD_MAX = 1

/**
 * The three heartbeats are one in a hospital whose database, events and files are of one instant. Their difference is how far they are apart, in seconds, and
 * the age of the last is how far back this hospital is.
 */
export const heartbeats: Check = {
  name: 'heartbeats',
  run: async ({ client, filesDirectory, files, now }) => {
    const row = await lastOf(client, LAST_ROW)
    const event = await lastOf(client, LAST_EVENT)
    // A copy of the database alone has no files of its instant: those that are there are of another.
    const file = files === 'none' ? 'not looked at' : await lastFile(join(filesDirectory, 'heartbeat'))
    const found = `row ${shown(row, now)}; event ${shown(event, now)}; file ${typeof file === 'string' ? file : shown(file, now)}`
    if (row === undefined && event === undefined) return { kind: 'not proven', reason: 'there is no heartbeat', found }
    const list = new FindingList()
    if (row?.sequence !== event?.sequence)
      list.add('heartbeats', `the row is number ${row?.sequence ?? 0}, and the event ${event?.sequence ?? 0}`)
    if (file === 'no directory') return { kind: 'not proven', reason: 'there are no files of heartbeats', found }
    if (file === 'not looked at') {
      const expected = 'the database and the events are of one instant'
      return { kind: 'judged', expected, found, findings: list.findings, total: list.total }
    }
    const apart = (file?.sequence ?? 0) - (row?.sequence ?? 0)
    if (apart < 0) list.add('heartbeats', `the files are ${-apart} beats behind the database`)
    if (apart > FILE_AHEAD_MAX) list.add('heartbeats', `the database is ${apart} beats behind the files`)
    const expected = 'the database, the events and the files are of one instant'
    return { kind: 'judged', expected, found, findings: list.findings, total: list.total }
  },
}

async function lastOf(client: pg.ClientBase, statement: string): Promise<Beat | undefined> {
  const { rows } = await client.query<{ sequence: string; at: Date }>(statement)
  return rows[0] === undefined ? undefined : { sequence: Number(rows[0].sequence), at: rows[0].at }
}

/** The greatest number that a whole file has; the layout is that of src/heartbeat. */
async function lastFile(directory: string): Promise<Beat | undefined | 'no directory'> {
  const names = await readdir(directory).catch(() => undefined)
  if (names === undefined) return 'no directory'
  const numbers = names.flatMap((name) => (/^\d{1,15}\.json$/.test(name) ? [Number.parseInt(name, 10)] : []))
  for (const sequence of numbers.toSorted((a, b) => b - a)) {
    const at = await timeIn(join(directory, `${sequence}.json`), sequence)
    if (at !== undefined) return { sequence, at }
  }
  return undefined
}

async function timeIn(path: string, sequence: number): Promise<Date | undefined> {
  try {
    const content = JSON.parse(await readFile(path, 'utf8')) as { sequence?: unknown; at?: unknown }
    const at = new Date(String(content.at))
    return content.sequence === sequence && !Number.isNaN(at.getTime()) ? at : undefined
  } catch {
    // Torn, or taken away meanwhile: the one before it counts.
    return undefined
  }
}

function shown(beat: Beat | undefined, now: Date): string {
  return beat === undefined ? 'none' : `${beat.sequence}, ${Math.round((now.getTime() - beat.at.getTime()) / 1000)} s old`
}
