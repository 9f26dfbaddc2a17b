import pg from 'pg'
import { CannotRun } from '../refusal.ts'
import { bringBack, removeForLoad } from './bulk-load.ts'
import { ChainWriter, EVENT_COLUMNS } from './chain.ts'
import { copyIn } from './copy.ts'
import { DocumentFiles } from './document-files.ts'
import { history } from './history.ts'
import { makePlan, PURPOSES, type Size } from './plan.ts'
import { Random } from './random.ts'

export interface GenerateOptions extends Size {
  /** Of the database's owner, who sees everything. */
  readonly connectionString: string
  readonly filesDirectory: string
  /** Told after each part that the database has taken. */
  readonly report?: (events: number) => void
}

export interface Generated {
  readonly events: number
  readonly documents: number
  /** Over the hashes of all events: the same for the same seed, sizes and end. */
  readonly digest: string
}

/** No connection of the service takes it: those begin with 1. */
const LANE = 0
const PART_EVENTS = 5000
const CHUNK_CHARACTERS = 64 * 1024
/** Events that are hashed once more by the database before they become visible. */
const SAMPLED = 1000

/**
 * Fills an empty hospital, in one transaction: whoever interrupts it finds it empty. Documents are written before it commits, so what is left of an interrupted
 * run are files that nobody names, and the next run with that seed writes again. Nobody else writes events meanwhile. Throws CannotRun for a hospital
 * that has patients or facilities.
 */
export async function generate(options: GenerateOptions): Promise<Generated> {
  const client = new pg.Client({
    connectionString: options.connectionString,
    application_name: 'hospital generate',
    options: '-c search_path=hospital,pg_temp -c timezone=UTC -c jit=off -c work_mem=64MB -c synchronous_commit=on',
  })
  // What waits for the connection fails with the same error.
  client.on('error', () => undefined)
  await client.connect()
  try {
    await client.query('begin')
    const lastPosition = await takeEmpty(client)
    const removed = await removeForLoad(client)
    const random = new Random(options.seed, PURPOSES.eventIds)
    const chain = new ChainWriter({ lane: LANE, lastPosition, random })
    const files = new DocumentFiles(options.filesDirectory)
    const events = await loadParts(client, { chain, files, options })
    await files.finish()
    await closeChains(client, chain)
    await bringBack(client, removed)
    await requireSameHashes(client, lastPosition, events)
    await client.query('commit')
    await analyze(client)
    return { events, documents: files.count, digest: chain.digest() }
  } finally {
    // Ends the transaction if it has not been committed.
    await client.end()
  }
}

/** Locks the events, and gives the last position drawn. Whoever writes waits, before it draws a position. */
async function takeEmpty(client: pg.Client): Promise<bigint> {
  await client.query('lock table hospital.events in access exclusive mode')
  const { rows } = await client.query<{ patients: string; facilities: string; last: string }>(`
    select (select count(*) from hospital.patients) as patients, (select count(*) from hospital.facilities) as facilities,
      (select case when is_called then last_value else 0 end from hospital.events_position_seq) as last`)
  const { patients, facilities, last } = rows[0]!
  if (patients !== '0' || facilities !== '0') {
    throw new CannotRun(`this hospital has ${patients} patients and ${facilities} facilities already`, {
      hint: 'generate into an empty one: name another --home or --database',
    })
  }
  return BigInt(last)
}

interface Load {
  readonly chain: ChainWriter
  readonly files: DocumentFiles
  readonly options: GenerateOptions
}

/**
 * Gives how many events there are. The next part is made while the database projects the last one: making it holds this thread up, and the database needs
 * nothing of us meanwhile. While it copies it does, so that is waited for first.
 */
async function loadParts(client: pg.Client, { chain, files, options }: Load): Promise<number> {
  const before = chain.position
  let part = new Part(before)
  let projecting: Promise<void> = Promise.resolve()
  for (const { draft, file } of history(makePlan(options))) {
    part.add(chain.row(draft))
    if (file !== undefined) files.add(file)
    if (part.rows < PART_EVENTS) continue
    await projecting
    // Both leave this thread free, and so go well together.
    await Promise.all([copyPart(client, part), files.write()])
    projecting = projectPart(client, part)
    // Judged at the next await of it; until then a failure is not unhandled.
    projecting.catch(() => undefined)
    options.report?.(Number(chain.position - before))
    part = new Part(chain.position)
  }
  await projecting
  await copyPart(client, part)
  await projectPart(client, part)
  return Number(chain.position - before)
}

/** Rows of COPY behind a position, as bytes. */
class Part {
  readonly first: bigint
  readonly #chunks: Buffer[] = []
  #rows = 0
  #text = ''

  constructor(behind: bigint) {
    this.first = behind + 1n
  }

  get rows(): number {
    return this.#rows
  }

  get last(): bigint {
    return this.first + BigInt(this.#rows) - 1n
  }

  add(row: string): void {
    this.#rows += 1
    this.#text += row
    if (this.#text.length >= CHUNK_CHARACTERS) this.#cut()
  }

  chunks(): readonly Buffer[] {
    if (this.#text !== '') this.#cut()
    return this.#chunks
  }

  #cut(): void {
    this.#chunks.push(Buffer.from(this.#text))
    this.#text = ''
  }
}

async function copyPart(client: pg.Client, part: Part): Promise<void> {
  await copyIn(client, `copy hospital.events (${EVENT_COLUMNS}) from stdin`, part.chunks())
}

async function projectPart(client: pg.Client, part: Part): Promise<void> {
  await client.query('select hospital.project($1, $2)', [part.first, part.last])
}

/** The lane and the sequence of positions end where the events do. */
async function closeChains(client: pg.Client, { lane, position }: ChainWriter): Promise<void> {
  await client.query('insert into hospital.lanes (lane, sequence, hash) values ($1, $2, $3)', [
    lane.lane,
    lane.sequence,
    lane.hash,
  ])
  await client.query("select setval('hospital.events_position_seq', $1)", [position])
}

/** So that the first searches need not wait for autovacuum. Nobody searches by whole JSON documents, whose statistics cost the most. */
async function analyze(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ statement: string }>(`
    select format('analyze %s (%s)', c.oid::regclass, string_agg(quote_ident(a.attname), ', ')) as statement
    from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'hospital'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped and a.atttypid <> 'jsonb'::regtype
    group by c.oid`)
  for (const { statement } of rows) await client.query(statement)
}

/** Two say what an event's hash is, ChainWriter and the database; what they disagree on is never committed. */
async function requireSameHashes(client: pg.Client, lastPosition: bigint, events: number): Promise<void> {
  const step = Math.max(1, Math.floor(events / SAMPLED))
  const { rows } = await client.query<{ position: string }>(
    `select e.position from generate_series($1::bigint, $2::bigint, $3::bigint) as sampled(position) join hospital.events e using (position)
      where e.hash <> hospital.event_hash(e.previous_hash, e) limit 1`,
    [lastPosition + 1n, lastPosition + BigInt(events), step],
  )
  if (rows[0] !== undefined)
    throw new Error(`the event at position ${rows[0].position} has another hash than the database gives it`)
}
