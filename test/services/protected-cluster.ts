import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import pg from 'pg'
import { systemClock } from '../../src/clock.ts'
import { endCluster, freePort, startCluster, stopCluster } from '../../src/postgres/cluster-process.ts'
import type { Installation } from '../../src/postgres/installation.ts'
import { backupPostgres, type BackupOptions, type BackupReport } from '../../src/protect/postgres/backup.ts'
import { postgresComponentSchema, type PostgresComponent } from '../../src/protect/postgres/component.ts'
import type { RecoveryTarget } from '../../src/protect/postgres/recovery-target.ts'
import { restorePostgres, type RestoreOptions, type RestoreReport } from '../../src/protect/postgres/restore.ts'
import { previewRestore, type RestorePreview } from '../../src/protect/postgres/restore-preview.ts'
import { initRepository, type Repository } from '../../src/repository/repository.ts'
import { Secret } from '../../src/secret.ts'
import { DirectoryStorage } from '../../src/storage/directory-storage.ts'
import { testCluster, type TestCluster, type TestClusterOptions } from './postgres.ts'
import { HANGS_AFTER_MS } from './wait-until.ts'

export const TEST_PASSPHRASE = 'correct horse battery staple'

/** A restored cluster that runs. Disposing of it stops it and removes its directory. */
export interface RestoredCluster extends AsyncDisposable {
  readonly directory: string
  readonly port: number
  readonly installation: Installation
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(text: string): Promise<Row[]>
  /** Stops it in good order; `proveRestored` then looks at its files. */
  stop(): Promise<void>
}

/** A real cluster with a repository, a configuration file for the CLI, and all in one temporary directory. */
export interface ProtectedCluster extends AsyncDisposable {
  readonly cluster: TestCluster
  readonly component: PostgresComponent
  readonly repository: Repository
  readonly repositoryDirectory: string
  readonly stateDirectory: string
  readonly configPath: string
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(text: string): Promise<Row[]>
  /** With these options instead of the cluster's own. */
  backup(options?: Partial<BackupOptions>): Promise<BackupReport>
  /** Restores into a new directory, or into `to`, with these options besides. */
  restore(target?: RecoveryTarget, to?: string, more?: Partial<RestoreOptions>): Promise<RestoreReport>
  preview(target: RecoveryTarget, to: string, more?: Partial<RestoreOptions>): Promise<RestorePreview>
  /** Starts a restored cluster and waits until its recovery has ended. */
  startRestored(report: RestoreReport): Promise<RestoredCluster>
}

export async function protectedCluster(t: TestContext, options: TestClusterOptions): Promise<ProtectedCluster> {
  const cluster = await testCluster(t, options)
  const home = await mkdtemp(join(cluster.home, 'resus-'))
  const storage = new DirectoryStorage(join(home, 'repository'))
  await storage.prepare()
  // The configuration's repository is opened with the cost that it was made with: a low one keeps wal-get quick in tests.
  const passphrase = new Secret(TEST_PASSPHRASE)
  const { repository } = await initRepository({ storage, passphrase, system: 'test-his' }, { clock: systemClock, kdfCost: 1024 })
  const settings = postgresComponentSchema.parse({
    kind: 'postgres',
    tier: 'critical',
    connection: cluster.connectionString,
    dataDirectory: cluster.directory,
    binaries: cluster.installation.binDirectory,
  })
  const component = { ...settings, name: 'his-db', connection: new Secret(cluster.connectionString) }
  const stateDirectory = join(home, 'state')
  const configPath = await writeConfiguration(home, component, cluster.connectionString)
  const clients = new Map<string, pg.Client>()
  const common = { repository, component, stateDirectory, clock: systemClock, signal: new AbortController().signal }
  let restores = 0
  return {
    cluster,
    component,
    repository,
    repositoryDirectory: join(home, 'repository'),
    stateDirectory,
    configPath,
    query: (text) => query(clients, cluster.connectionString, text),
    backup: (more = {}) => backupPostgres({ ...common, ...more }),
    restore: (target = { kind: 'latest' }, to = join(home, `restored-${restores++}`), more = {}) =>
      restorePostgres({ ...common, to, target, configPath, ...more }),
    preview: (target, to, more = {}) => previewRestore({ ...common, to, target, configPath, ...more }),
    startRestored: (report) => startRestored(report, cluster),
    [Symbol.asyncDispose]: async () => {
      for (const client of clients.values()) await client.end().catch(() => undefined)
      await cluster[Symbol.asyncDispose]()
    },
  }
}

async function writeConfiguration(home: string, component: PostgresComponent, connection: string): Promise<string> {
  const passphrase = join(home, 'passphrase')
  await writeFile(passphrase, TEST_PASSPHRASE, { mode: 0o600 })
  const path = join(home, 'resus.yaml')
  const configuration = {
    system: 'test-his',
    state: join(home, 'state'),
    repository: {
      storages: [{ name: 'main', kind: 'directory', path: join(home, 'repository') }],
      key: { passphrase: `file:${passphrase}` },
    },
    components: {
      'his-db': {
        kind: 'postgres',
        tier: 'critical',
        connection,
        dataDirectory: component.dataDirectory,
        binaries: component.binaries,
        stream: component.stream,
      },
    },
  }
  // JSON is YAML.
  await writeFile(path, JSON.stringify(configuration, null, 2))
  return path
}

async function startRestored(report: RestoreReport, { installation, home }: TestCluster): Promise<RestoredCluster> {
  const { directory } = report
  const port = await freePort()
  const settings = {
    port: String(port),
    listen_addresses: '127.0.0.1',
    fsync: 'off',
    shared_buffers: '32MB',
    dynamic_shared_memory_type: 'mmap',
  }
  await startCluster({
    installation,
    directory,
    port,
    // A path of a socket has at most 107 bytes.
    socketDirectory: join(home, 's'),
    logFile: `${directory}.log`,
    settings,
    timeoutSeconds: HANGS_AFTER_MS / 1000,
  })
  const clients = new Map<string, pg.Client>()
  const connection = `postgres://postgres@127.0.0.1:${port}/postgres`
  const ask = <Row extends pg.QueryResultRow>(text: string) => query<Row>(clients, connection, text)
  const stop = async () => {
    for (const client of clients.values()) await client.end().catch(() => undefined)
    clients.clear()
    await stopCluster({ directory, mode: 'fast' })
  }
  // pg_ctl reports a standby as started as soon as it takes readers.
  while ((await ask<{ recovering: boolean }>('select pg_is_in_recovery() as recovering'))[0]?.recovering === true) {
    await systemClock.sleep(20)
  }
  return {
    directory,
    port,
    installation,
    query: ask,
    stop,
    [Symbol.asyncDispose]: async () => {
      for (const client of clients.values()) await client.end().catch(() => undefined)
      await endCluster(directory)
      await rm(directory, { recursive: true, force: true })
    },
  }
}

async function query<Row extends pg.QueryResultRow>(
  clients: Map<string, pg.Client>,
  connection: string,
  text: string,
): Promise<Row[]> {
  let client = clients.get(connection)
  if (client === undefined) {
    client = new pg.Client({ connectionString: connection })
    client.on('error', () => clients.delete(connection))
    await client.connect()
    clients.set(connection, client)
  }
  const result = await client.query<Row>(text)
  return result.rows
}
