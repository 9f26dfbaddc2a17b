import { appendFile, writeFile } from 'node:fs/promises'
import pg from 'pg'
import { Failure } from '../errors.ts'
import { initCluster, startCluster } from '../postgres/cluster-process.ts'
import { requireInstallation, type Installation } from '../postgres/installation.ts'
import type { DemoDirectory } from './demo-directory.ts'

export const COMPONENT = 'his-db'
export const SYSTEM = 'osun-his'
const MAJOR = 18
/** Only names the socket: nothing of the demo can be reached over the network. */
const PORT = 5432
const PASSPHRASE = 'a passphrase for the demo, in which nobody is a patient'

/** What a hospital's administrator would have set; a backup takes it along. */
const SETTINGS = `
# The demo's hospital.
listen_addresses = ''
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
max_slot_wal_keep_size = 1GB
# Containers often have a /dev/shm that is too small for the default.
dynamic_shared_memory_type = mmap
`

/** A role with what Resus needs, and no more. README.md has the same. */
const ROLE = `
  create role resus login replication;
  grant pg_monitor to resus;
  grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean) to resus;`

/** The hospital's server: where it is, and how to come to it. */
export interface HospitalServer {
  readonly installation: Installation
  readonly directory: DemoDirectory
  readonly connection: string
}

/** Makes a cluster, starts it and gives Resus its role. */
export async function createServer(directory: DemoDirectory): Promise<HospitalServer> {
  const installation = await requireInstallation(MAJOR)
  await initCluster({ installation, directory: directory.cluster, dataChecksums: true, sync: false })
  await appendFile(`${directory.cluster}/postgresql.conf`, SETTINGS)
  const server = { installation, directory, connection: connectionString(directory, 'postgres') }
  await startServer(server)
  await useServer(server, async (client) => {
    await client.query(ROLE)
  })
  return server
}

/** Starts it, also as a restored one: its own settings are in its directory. */
export async function startServer(server: HospitalServer, signal?: AbortSignal): Promise<void> {
  await startCluster({
    installation: server.installation,
    directory: server.directory.cluster,
    port: PORT,
    socketDirectory: server.directory.socket,
    logFile: server.directory.serverLog,
    timeoutSeconds: 120,
    ...(signal === undefined ? {} : { signal }),
  })
}

/** How Resus connects. */
export function resusConnection({ directory }: HospitalServer): string {
  return connectionString(directory, 'resus')
}

/** Writes what `resus init` and everything after it needs: the configuration and the passphrase. */
export async function writeConfiguration(directory: DemoDirectory, check: readonly string[]): Promise<void> {
  await writeFile(directory.passphrase, `${PASSPHRASE}\n`, { mode: 0o600 })
  const text = `# Written by "resus demo". All paths are relative to this file.
system: ${SYSTEM}
state: state
repository:
  storages:
    - { name: main, kind: directory, path: repository }
  key: { passphrase: "file:passphrase" }
components:
  ${COMPONENT}:
    kind: postgres
    tier: critical
    connection: "${connectionString(directory, 'resus')}"
    dataDirectory: cluster
    stream: { synchronous: true, slot: resus, partialEverySeconds: 1 }
    checks:
      sql:
        - { name: patients, query: select count(*) from hospital.patients, expect: { least: 50 } }
      commands:
        - { name: hospital check, trusted: true, run: ${JSON.stringify(check)} }
`
  await writeFile(directory.configuration, text, { mode: 0o600 })
}

/** Makes the server wait for Resus at every commit, and waits until it does: from then on nothing acknowledged can be lost. */
export async function requireSynchronous(client: pg.Client): Promise<void> {
  await client.query("alter system set synchronous_standby_names = 'FIRST 1 (resus)'")
  await client.query('select pg_reload_conf()')
  const deadline = performance.now() + 10_000
  while (performance.now() < deadline) {
    const { rows } = await client.query<{ named: string; state: string | null }>(`
      select current_setting('synchronous_standby_names') as named,
        (select max(sync_state) from pg_stat_replication where application_name = 'resus') as state`)
    if (rows[0]?.state === 'sync' && rows[0].named !== '') return
  }
  throw new Failure('SERVER_SETTING', 'the server does not take the receiver for its synchronous standby', {
    hint: 'is its application_name "resus"? See stream.log',
  })
}

/** Whether the server streams to a receiver. */
export async function isReceiving(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query(
    "select 1 from pg_stat_replication where application_name = 'resus' and state = 'streaming'",
  )
  return rows.length === 1
}

/** Connects, works, and closes. */
export async function useServer<T>(server: HospitalServer, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(server)
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}

export async function connect(server: HospitalServer): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: server.connection, application_name: 'demo' })
  client.on('error', () => undefined)
  await client.connect()
  return client
}

function connectionString(directory: DemoDirectory, user: string): string {
  return `postgres://${user}@/postgres?host=${encodeURIComponent(directory.socket)}&port=${PORT}`
}
