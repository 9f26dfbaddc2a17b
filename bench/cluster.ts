import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { endCluster, freePort, initCluster, startCluster, stopCluster } from '../src/postgres/cluster-process.ts'
import { requireInstallation, type Installation } from '../src/postgres/installation.ts'

/** pgBackRest 2.45, of Debian 12, knows no newer one. */
export const BENCH_MAJOR = 15
const BYTES_PER_MB = 1_000_000
/** An empty cluster. */
const EMPTY_BYTES = 22 * BYTES_PER_MB
const RECOVERY_TIMEOUT_MS = 120_000
const RELATIONS_AT_ONCE = 1000

// Rows like a hospital's, without one word of a real one. An update finds room on its own page, so that it changes no other.
const TABLES = [
  {
    name: 'patients',
    /** Of the bytes of all tables. */
    share: 0.06,
    /** With its indexes, as measured. */
    rowBytes: 324,
    columns: `id bigint, facility int, record_number text, family text, given text, born date, sex text, phone text, address jsonb,
      note text, created timestamptz, updated timestamptz`,
    row: `i, i % 7, 'MRN-' || lpad(i::text, 9, '0'),
      (array['Okafor','Lindqvist','Tanaka','Mensah','Alvarez','Novak','Haddad','Kowalski'])[1 + (random()*7)::int],
      (array['Ada','Bayo','Chen','Dalia','Emeka','Freya','Goran','Hana','Ines','Jonas'])[1 + (random()*9)::int] || ' ' || chr(65 + (random()*25)::int) || '.',
      date '1930-01-01' + (random()*33000)::int, (array['female','male','other'])[1 + (random()*2)::int],
      '+234' || (random()*899999999 + 100000000)::bigint,
      jsonb_build_object('use', 'home', 'line', (random()*400)::int || ' Hospital Road', 'city', (array['Osogbo','Ilesa','Ede','Ikirun'])[1 + (random()*3)::int], 'country', 'NG'),
      (array['', 'allergic to penicillin, rash on second day','no known allergies','type 2 diabetes, diet controlled'])[1 + (random()*3)::int],
      timestamptz '2024-01-01 00:00+00' + random()*interval '900 days', timestamptz '2026-01-01 00:00+00'`,
    indexes: ['(facility, family, given)', '(record_number)'],
  },
  {
    name: 'encounters',
    share: 0.2,
    rowBytes: 448,
    columns: `id bigint, uid uuid, patient bigint, facility int, class text, status text, begun timestamptz, ended timestamptz, reason text,
      practitioner text, resource jsonb, updated timestamptz`,
    row: `i, md5(i || 'encounter')::uuid, 1 + (random()*300000)::bigint, i % 7, (array['AMB','IMP','EMER','OBSENC'])[1 + (random()*3)::int], 'finished',
      timestamptz '2025-01-01 00:00+00' + i * interval '1 minute', timestamptz '2025-01-01 00:40+00' + (i + random()*90) * interval '1 minute',
      (array['fever and headache for three days','antenatal visit','review of wound after operation','chest pain on exertion','malaria, confirmed by smear'])[1 + (random()*4)::int],
      'Practitioner/' || (random()*900)::int,
      jsonb_build_object('resourceType', 'Encounter', 'status', 'finished', 'priority', (array['R','UR','EM'])[1 + (random()*2)::int],
        'location', jsonb_build_array(jsonb_build_object('ward', (random()*30)::int, 'bed', (random()*40)::int)), 'version', (random()*3)::int),
      timestamptz '2026-01-01 00:00+00'`,
    indexes: ['(uid)', '(patient, begun)'],
  },
  // No page of one year is the same as one of the other: what is stored only once would flatter Resus.
  ...[2025, 2026].map((year) => ({
    name: `observations_${year}`,
    share: 0.37,
    rowBytes: 438,
    columns: `id bigint, uid uuid, encounter bigint, patient bigint, code text, display text, value numeric(12,3), unit text, status text,
      effective timestamptz, performer text, resource jsonb, updated timestamptz`,
    row: `i + ${year} * 1000000000::bigint, md5(i || 'observation ${year}')::uuid, i / 6, 1 + (random()*300000)::bigint, code, display, round((random()*400)::numeric, 3), unit, 'final',
      timestamptz '${year}-01-01 00:00+00' + i * interval '10 seconds', 'Device/' || (random()*400)::int,
      jsonb_build_object('resourceType', 'Observation', 'category', 'laboratory', 'method', 'automated analyser', 'specimen', md5(i || 'specimen ${year}'),
        'interpretation', (array['N','H','L'])[1 + (random()*2)::int]), timestamptz '2026-01-01 00:00+00'`,
    from: `, lateral (select (array['718-7','2160-0','8867-4','8310-5','2345-7'])[1 + i % 5] as code,
      (array['Hemoglobin [Mass/volume] in Blood','Creatinine [Mass/volume] in Serum','Heart rate','Body temperature','Glucose [Mass/volume] in Serum'])[1 + i % 5] as display,
      (array['g/dL','mg/dL','/min','Cel','mg/dL'])[1 + i % 5] as unit) kinds`,
    indexes: ['(uid)', '(patient, effective)'],
  })),
]

/** Settings of the cluster while it is filled: nothing is logged for what a transaction itself has made. */
const FILLING = {
  wal_level: 'minimal',
  max_wal_senders: '0',
  archive_mode: 'off',
  fsync: 'off',
  max_wal_size: '8GB',
  maintenance_work_mem: '512MB',
}

export interface BenchClusterOptions {
  /** A directory of its own. */
  readonly home: string
  readonly sizeMb: number
  /** So many tables of one page each besides; none by default. */
  readonly relations?: number
  /** A shell command, as PostgreSQL's setting. */
  readonly archiveCommand: string
}

/** A cluster that runs and in which nothing happens by itself. */
export interface BenchCluster extends AsyncDisposable {
  readonly directory: string
  readonly port: number
  readonly socketDirectory: string
  readonly connectionString: string
  readonly installation: Installation
  /** Changes one row on about this share of the pages of every table, at random, and writes all to disk. */
  changePages(share: number, round: number): Promise<void>
  checkpoint(): Promise<void>
  content(): Promise<ClusterContent>
}

/** Number of rows and a hash of all of them, for each table. */
export type ClusterContent = Readonly<Record<string, string>>

export async function makeCluster(options: BenchClusterOptions): Promise<BenchCluster> {
  const installation = await requireInstallation(BENCH_MAJOR)
  const directory = join(options.home, 'data')
  const socketDirectory = join(options.home, 's')
  await mkdir(options.home, { recursive: true })
  await initCluster({ installation, directory, dataChecksums: true, sync: false })
  const port = await freePort()
  const connectionString = `postgres://postgres@127.0.0.1:${port}/postgres`
  const start = (settings: Readonly<Record<string, string>>) =>
    startCluster({
      installation,
      directory,
      port,
      socketDirectory,
      logFile: join(options.home, 'server.log'),
      settings: { ...QUIET, ...settings },
    })
  try {
    await start(FILLING)
    await fill(connectionString, options.sizeMb)
    await addRelations(connectionString, options.relations ?? 0)
    await stopCluster({ directory, mode: 'fast' })
    await start({ wal_level: 'replica', archive_mode: 'on', archive_command: options.archiveCommand })
  } catch (error) {
    await endCluster(directory)
    throw error
  }
  return {
    directory,
    port,
    socketDirectory,
    connectionString,
    installation,
    changePages: (share, round) => withClient(connectionString, (client) => changePages(client, share, round)),
    checkpoint: () => withClient(connectionString, async (client) => void (await client.query('checkpoint'))),
    content: () => readContent(connectionString),
    [Symbol.asyncDispose]: () => endCluster(directory),
  }
}

const QUIET = {
  listen_addresses: '127.0.0.1',
  shared_buffers: '256MB',
  dynamic_shared_memory_type: 'mmap',
  autovacuum: 'off',
  checkpoint_timeout: '1d',
  bgwriter_lru_maxpages: '0',
  max_parallel_workers_per_gather: '0',
}

/** Starts a restored cluster, waits until its recovery has ended, reads its content, and kills it. */
export async function readRestored(
  restored: { directory: string; home: string },
  installation: Installation,
): Promise<ClusterContent> {
  const { directory, home } = restored
  const port = await freePort()
  const settings = { ...QUIET, fsync: 'off', archive_mode: 'off' }
  const socketDirectory = join(home, 's')
  try {
    await startCluster({
      installation,
      directory,
      port,
      socketDirectory,
      logFile: join(home, 'restored.log'),
      settings,
      timeoutSeconds: 120,
    })
    const connection = `postgres://postgres@127.0.0.1:${port}/postgres`
    await withClient(connection, waitUntilRecovered)
    return await readContent(connection)
  } finally {
    await endCluster(directory)
  }
}

async function waitUntilRecovered(client: pg.Client): Promise<void> {
  const deadline = performance.now() + RECOVERY_TIMEOUT_MS
  while (performance.now() < deadline) {
    const { rows } = await client.query<{ recovering: boolean }>('select pg_is_in_recovery() as recovering')
    if (rows[0]?.recovering === false) return
    await delay(50)
  }
  throw new Error(`a restored cluster is still in recovery after ${RECOVERY_TIMEOUT_MS / 1000} s`)
}

async function fill(connection: string, sizeMb: number): Promise<void> {
  const bytes = Math.max(1, sizeMb * BYTES_PER_MB - EMPTY_BYTES)
  await Promise.all(
    TABLES.map((table, number) =>
      withClient(connection, async (client) => {
        const from = 'from' in table ? table.from : ''
        await client.query('begin')
        await client.query(`create table ${table.name} (${table.columns}) with (fillfactor = 92)`)
        // The same rows in every run.
        await client.query(`select setseed(${(number + 1) / 10})`)
        const rows = Math.ceil((bytes * table.share) / table.rowBytes)
        await client.query(`insert into ${table.name} select ${table.row} from generate_series(1, ${rows}) i ${from}`)
        await client.query(`alter table ${table.name} add primary key (id)`)
        for (const index of table.indexes) await client.query(`create index on ${table.name} ${index}`)
        await client.query('commit')
        await client.query(`vacuum (freeze, analyze) ${table.name}`)
      }),
    ),
  )
  await withClient(connection, async (client) => {
    await client.query('vacuum (freeze)')
    await client.query('checkpoint')
  })
}

/** Tables without an index or a TOAST table, each with rows that no other has: one file each. */
async function addRelations(connection: string, count: number): Promise<void> {
  await withClient(connection, async (client) => {
    for (let from = 1; from <= count; from += RELATIONS_AT_ONCE) {
      const to = Math.min(count, from + RELATIONS_AT_ONCE - 1)
      // Each statement locks every table that it makes.
      await client.query(`do $$ begin for number in ${from} .. ${to} loop
        execute format('create table relation_%s as select i as id, md5(%s || ''.'' || i)::uuid as uid from generate_series(1, 60) i', number, number);
        end loop; end $$`)
    }
    await client.query('checkpoint')
  })
}

async function changePages(client: pg.Client, share: number, round: number): Promise<void> {
  for (const { name } of TABLES) {
    // Another row of the page in each round: the one of the last has moved within its page.
    const changed = `select array_agg(format('(%s,%s)', block, ${1 + (round % 10)})::tid)
      from (select distinct (random() * (pages - 1))::bigint as block
            from (select pg_relation_size('${name}') / 8192 as pages) size, generate_series(1, ceil(pages * ${share})::int)) blocks`
    await client.query(`update ${name} set updated = updated + random() * interval '1 day' where ctid = any((${changed})::tid[])`)
  }
  await client.query('checkpoint')
}

async function readContent(connection: string): Promise<ClusterContent> {
  const contents = await Promise.all(
    TABLES.map(({ name }) =>
      withClient(connection, async (client) => {
        const sql = `select count(*) || ' rows, hash ' || coalesce(sum(hash_record_extended(t, 0)::numeric), 0) as content from ${name} t`
        const { rows } = await client.query<{ content: string }>(sql)
        return [name, rows[0]?.content ?? ''] as const
      }),
    ),
  )
  return Object.fromEntries(contents)
}

async function withClient<T>(connectionString: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}
