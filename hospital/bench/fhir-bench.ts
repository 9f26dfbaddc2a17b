import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { Database, type Context } from '../src/database/database.ts'
import { startEmbedded } from '../src/database/embedded.ts'
import { migrate } from '../src/database/migrate.ts'
import { onboardFacility } from '../src/facilities/onboard.ts'
import { addUser } from '../src/facilities/users.ts'
import { makeToken } from '../src/http/authentication.ts'

// How many resources a second the service creates, with everything that a write is, and how long searches take. The server, its service and this
// program share the machine; PostgreSQL's settings are its defaults (fsync and synchronous_commit on) but for shared_buffers.
//   node hospital/bench/fhir-bench.ts --patients 100000 --seconds 20
// With --home DIRECTORY what was filled stays there, and is used the next time.

const { values: given } = parseArgs({
  options: {
    patients: { type: 'string', default: '100000' },
    seconds: { type: 'string', default: '20' },
    connections: { type: 'string', default: '32' },
    searches: { type: 'string', default: '500' },
    home: { type: 'string' },
  },
})
const [patients, seconds, connections, searches] = [given.patients, given.seconds, given.connections, given.searches].map(
  Number,
) as [number, number, number, number]
const FACILITIES = 5
const OBSERVATIONS_EACH = 4
const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url))
const GROUP: Context = { kind: 'group', actor: 'bench' }

interface Answer {
  readonly status: number
  readonly body: string
}

async function bench(): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const home = given.home ?? (await mkdtemp(join(tmpdir(), 'hospital-bench-')))
  if (given.home === undefined) stack.defer(async () => rm(home, { recursive: true, force: true }))
  else await mkdir(home, { recursive: true })
  await chmod(home, 0o755)
  const settings = { shared_buffers: '512MB', dynamic_shared_memory_type: 'mmap', max_wal_size: '4GB' }
  const server = stack.use(await startEmbedded(home, { settings }))
  await migrate(server.connectionString)
  const admin = new pg.Client({ connectionString: server.connectionString, options: '-c search_path=hospital,pg_temp' })
  await admin.connect()
  stack.defer(async () => admin.end())
  print(`machine: ${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)} before`)
  await measureCommits(server.connectionString, 1)
  await measureCommits(server.connectionString, 16)
  const isFilled = (await admin.query("select from users where id = 'bench'")).rowCount === 1
  if (!isFilled) {
    await makeStaff(server.connectionString)
    await fill(admin)
  }
  const token = await makeToken(admin, 'bench')
  const service = await startService(home, server.connectionString)
  stack.defer(async () => stop(service.child))
  const ask = client(service.url, token)
  await publishBacklog(admin)
  const ids = await somePatients(admin)
  const postmaster = Number((await readFile(join(server.directory, 'postmaster.pid'), 'utf8')).split('\n')[0])
  await measureCreates(ask, ids, { service: service.child.pid ?? 0, postmaster })
  await measureSearches(ask, ids)
  print(`machine: load ${loadavg()[0]?.toFixed(1)} after`)
}

/** The machine's own limit: rows of no content, each committed. */
async function measureCommits(connectionString: string, clients: number): Promise<void> {
  const all = await Promise.all(
    Array.from({ length: clients }, async () => {
      const each = new pg.Client({ connectionString })
      await each.connect()
      return each
    }),
  )
  await all[0]!.query('create table if not exists public.plain (n integer)')
  let commits = 0
  const untilMs = performance.now() + 2000
  await Promise.all(
    all.map(async (each) => {
      while (performance.now() < untilMs) {
        await each.query('insert into public.plain values (1)')
        commits += 1
      }
    }),
  )
  await Promise.all(all.map(async (each) => each.end()))
  print(`limit: ${Math.round(commits / 2)} plain inserts with commit a second on ${clients} connection(s)`)
}

async function makeStaff(connectionString: string): Promise<void> {
  const database = new Database({ connectionString, connectionsMax: 2 })
  await database.transaction(GROUP, async (transaction) => {
    for (let n = 1; n <= FACILITIES; n += 1) {
      await onboardFacility(transaction, { id: `FAC00${n}`, name: `Hospital ${n}`, lga: 'Osogbo', type: 'SECONDARY' })
    }
    await addUser(transaction, { id: 'bench', name: 'Bench', role: 'clinician', facility: 'FAC001' })
  })
  await database.close()
}

/** Patients and their results, as events without real chains of hashes, which nothing here reads, and projected by the hospital's own handlers. */
async function fill(admin: pg.Client): Promise<void> {
  const startedMs = performance.now()
  await admin.query(
    `create temp table people as select n, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as id, 'FAC00' || 1 + n % $2 as facility
     from generate_series(1, $1::integer) n`,
    [patients, FACILITIES],
  )
  const insert = (kind: string, source: string): string => `
    insert into events (id, stream, version, type, schema_version, facility, actor, at, payload, previous_hash, hash, lane, lane_sequence, lane_hash)
    select gen_random_uuid(), '${kind}/' || id, 1, 'Filled', ${kind === 'Patient' ? 2 : 1}, facility, 'bench', '2025-01-01', jsonb_build_object('resource', resource),
      hospital.no_hash(), sha256(id::text::bytea), 500, row_number() over () + ${kind === 'Patient' ? 0 : 10_000_000}, hospital.no_hash()
    from (${source}) s`
  await admin.query(
    insert(
      'Patient',
      `select id, facility, jsonb_build_object('resourceType', 'Patient', 'id', id, 'active', true, 'gender', 'female', 'birthDate', (date '1940-01-01' + n % 30000)::text,
        'identifier', jsonb_build_array(jsonb_build_object('system', 'https://his.osun.example/mrn/' || facility, 'value', lpad(n::text, 8, '0'))),
        'name', jsonb_build_array(jsonb_build_object('family', 'Family' || n % 5000, 'given', jsonb_build_array('Given' || n % 700)))) as resource
       from people order by n`,
    ),
  )
  await admin.query(
    insert(
      'Observation',
      `select gen_random_uuid() as id, facility, jsonb_build_object('resourceType', 'Observation', 'status', 'final', 'subject', jsonb_build_object('reference', 'Patient/' || id),
        'code', jsonb_build_object('coding', jsonb_build_array(jsonb_build_object('system', 'http://loinc.org', 'code', '718-7'))),
        'effectiveDateTime', '2025-01-01T08:00:00Z') as resource
       from people, generate_series(1, ${OBSERVATIONS_EACH})`,
    ),
  )
  await admin.query('analyze events')
  const { rows } = await admin.query<{ last: string }>('select max(position) as last from events')
  await admin.query('select hospital.project(1, $1)', [rows[0]?.last])
  await admin.query('vacuum analyze')
  print(
    `filled: ${patients} patients with ${OBSERVATIONS_EACH} results each in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
  )
}

/** What was filled in is published first, as after any bulk load: not while creates are measured, whose own events are. */
async function publishBacklog(admin: pg.Client): Promise<void> {
  const startedMs = performance.now()
  const { rows } = await admin.query<{ last: string }>('select coalesce(max(position), 0) as last from events')
  const published = async (): Promise<bigint> => {
    const found = await admin.query<{ last: string }>('select coalesce(max(position), 0) as last from published_records')
    return BigInt(found.rows[0]!.last)
  }
  while ((await published()) < BigInt(rows[0]!.last)) await delay(200)
  await admin.query('checkpoint')
  print(`published: what there was, in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`)
}

async function somePatients(admin: pg.Client): Promise<string[]> {
  const { rows } = await admin.query<{ id: string }>(
    "select id from patients where facility = 'FAC001' order by md5(id::text) limit 5000",
  )
  return rows.map(({ id }) => id)
}

async function startService(home: string, connectionString: string): Promise<{ child: ChildProcess; url: string }> {
  const child = spawn(process.execPath, [MAIN, '--home', home, '--database', connectionString, 'serve', '--port', '0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /http:\/\/\S+/.exec(line)?.[0]
    if (url !== undefined) return { child, url }
  }
  throw new Error('the service did not start')
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}

type Ask = (method: string, path: string, body?: object) => Promise<Answer>

function client(url: string, token: string): Ask {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/fhir+json' }
  return async (method, path, body) =>
    await new Promise((settle, reject) => {
      const sent = request(`${url}${path}`, { method, agent, headers }, (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('end', () => settle({ status: response.statusCode ?? 0, body: Buffer.concat(parts).toString() }))
        response.on('error', reject)
      })
      sent.on('error', reject)
      sent.end(body === undefined ? undefined : JSON.stringify(body))
    })
}

async function measureCreates(ask: Ask, ids: readonly string[], processes: Processes): Promise<void> {
  await createFor(ask, ids, 2)
  const before = await cpuMs(processes)
  const { count, times, tookMs } = await createFor(ask, ids, seconds)
  const after = await cpuMs(processes)
  print(
    `creates: ${Math.round((count / tookMs) * 1000)} Observations a second on ${connections} connections for ${seconds} s ` +
      `(${count}; median ${quantile(times, 0.5)} ms, p99 ${quantile(times, 0.99)} ms), each an event, a version, a Provenance and an AuditEvent`,
  )
  // What it takes of the two cores, whatever else the machine does at the same time.
  const each = (name: keyof typeof after): string => ((after[name] - before[name]) / count).toFixed(2)
  print(
    `cpu: ${each('service')} ms of the service, ${each('database')} ms of the database, ${each('client')} ms of this client for each create`,
  )
}

interface Processes {
  readonly service: number
  readonly postmaster: number
}

/** CPU time from Linux's /proc; zero elsewhere. */
async function cpuMs({ service, postmaster }: Processes): Promise<Record<'service' | 'database' | 'client', number>> {
  const all = await Promise.all((await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name)).map(statOf))
  const sum = (isMeant: (stat: ProcessStat) => boolean): number => all.filter(isMeant).reduce((total, { ms }) => total + ms, 0)
  return {
    service: sum(({ pid }) => pid === service),
    database: sum(({ pid, parent }) => pid === postmaster || parent === postmaster),
    client: sum(({ pid }) => pid === process.pid),
  }
}

interface ProcessStat {
  readonly pid: number
  readonly parent: number
  readonly ms: number
}

async function statOf(name: string): Promise<ProcessStat> {
  const text = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  // Ticks of 10 ms.
  return { pid: Number(name), parent: Number(fields[1]), ms: (Number(fields[11]) + Number(fields[12])) * 10 || 0 }
}

async function createFor(
  ask: Ask,
  ids: readonly string[],
  durationSeconds: number,
): Promise<{ count: number; times: number[]; tookMs: number }> {
  const times: number[] = []
  const startedMs = performance.now()
  await Promise.all(
    Array.from({ length: connections }, async (_each, lane) => {
      for (let n = lane; performance.now() - startedMs < durationSeconds * 1000; n += connections) {
        const beganMs = performance.now()
        const answer = await ask('POST', '/fhir/Observation', observation(ids[n % ids.length]!))
        if (answer.status !== 201) throw new Error(`${answer.status}: ${answer.body}`)
        times.push(performance.now() - beganMs)
      }
    }),
  )
  return { count: times.length, times, tookMs: performance.now() - startedMs }
}

function observation(patient: string): object {
  return {
    resourceType: 'Observation',
    status: 'final',
    category: [{ coding: [{ system: 'http://terminology.hl7.org/CodeSystem/observation-category', code: 'laboratory' }] }],
    code: {
      coding: [{ system: 'http://loinc.org', code: '718-7', display: 'Hemoglobin [Mass/volume] in Blood' }],
      text: 'Haemoglobin',
    },
    subject: { reference: `Patient/${patient}` },
    effectiveDateTime: new Date().toISOString(),
    issued: new Date().toISOString(),
    valueQuantity: { value: 12.5, unit: 'g/dL', system: 'http://unitsofmeasure.org', code: 'g/dL' },
    referenceRange: [{ low: { value: 12, unit: 'g/dL' }, high: { value: 16, unit: 'g/dL' } }],
  }
}

async function measureSearches(ask: Ask, ids: readonly string[]): Promise<void> {
  const kinds: [string, (n: number) => string][] = [
    ['Patient by id (read)', (n) => `/fhir/Patient/${ids[n % ids.length]}`],
    ['Observation?patient', (n) => `/fhir/Observation?patient=${ids[n % ids.length]}`],
    ['Observation?patient&code&date', (n) => `/fhir/Observation?patient=${ids[n % ids.length]}&code=718-7&date=ge2025-01-01`],
    [
      'Patient?identifier (MRN)',
      (n) => `/fhir/Patient?identifier=https://his.osun.example/mrn/FAC001|${String((n * 5 * 7) % patients).padStart(8, '0')}`,
    ],
    ['Patient?family&given', (n) => `/fhir/Patient?family=family${n % 5000}&given=given${n % 700}`],
    ['Patient?name', (n) => `/fhir/Patient?name=family${n % 5000}`],
    ['Patient?birthdate', (n) => `/fhir/Patient?birthdate=${1941 + (n % 70)}-05-05`],
    ['Provenance?target', (n) => `/fhir/Provenance?target=Patient/${ids[n % ids.length]}`],
    ['Patient/$everything', (n) => `/fhir/Patient/${ids[n % ids.length]}/$everything`],
    ['Observation (first page)', () => '/fhir/Observation?_count=20'],
    ['AuditEvent?date', () => `/fhir/AuditEvent?date=ge${new Date(Date.now() - 5000).toISOString()}&_count=20`],
  ]
  for (const [name, pathOf] of kinds) {
    const times: number[] = []
    for (let n = 0; n < searches; n += 1) {
      const beganMs = performance.now()
      const answer = await ask('GET', pathOf(n))
      if (answer.status !== 200) throw new Error(`${name}: ${answer.status} ${answer.body}`)
      if (n >= 20) times.push(performance.now() - beganMs)
    }
    print(`search: ${name.padEnd(32)} median ${quantile(times, 0.5)} ms, p99 ${quantile(times, 0.99)} ms`)
  }
}

function quantile(times: readonly number[], part: number): string {
  const sorted = times.toSorted((a, b) => a - b)
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN).toFixed(1)
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

await bench()
