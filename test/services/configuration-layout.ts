import { execFile } from 'node:child_process'
import { chmod, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { systemClock } from '../../src/clock.ts'
import { endCluster, freePort } from '../../src/postgres/cluster-process.ts'
import { checkPostgres } from '../../src/protect/postgres/check.ts'
import { restorePostgres, type RestoreReport } from '../../src/protect/postgres/restore.ts'
import type { ProtectedCluster } from './protected-cluster.ts'

const run = promisify(execFile)

export interface ConfigurationLayout {
  /** Stands for /etc. */
  readonly etc: string
  readonly port: number
  /** By where they are kept: a link's under its own path. */
  readonly texts: Readonly<Record<string, string>>
}

/** Moves a cluster's configuration to a directory of its own, with all ways of including, and starts the server with it. */
export async function moveConfiguration(cluster: ProtectedCluster): Promise<ConfigurationLayout> {
  const { directory, home, installation } = cluster.cluster
  const [etc, port] = [join(home, 'etc'), await freePort()]
  const main = join(etc, 'postgresql/main')
  const hasIncludes = installation.major >= 16
  const texts: Record<string, string> = {
    'postgresql/main/postgresql.conf': `
data_directory = '${directory}'
hba_file = '${main}/pg_hba.conf'
ident_file = '${main}/pg_ident.conf'
external_pid_file = '${home}/main.pid'
port = ${port}
listen_addresses = '127.0.0.1'
unix_socket_directories = '${join(home, 's')}'
wal_level = replica
fsync = off
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
ssl = on
ssl_cert_file = '${etc}/ssl/server.crt'
ssl_key_file = '${etc}/ssl/private/server.key'
work_mem = '5MB'
include_dir = 'conf.d'
include 'nested/one.conf'
include_if_exists 'nobody/has/this.conf'
`,
    'postgresql/main/conf.d/10-his.conf': "cluster_name = 'his é'\nmaintenance_work_mem = '17MB'\n",
    'postgresql/main/nested/one.conf': "include '../../shared.conf'\ninclude '" + etc + "/absolute.conf'",
    'postgresql/shared.conf': "maintenance_work_mem = '18MB'\nwork_mem = '6MB'\n",
    'absolute.conf': "log_min_duration_statement = '12345ms'\n",
    'postgresql/main/pg_hba.conf': [
      'local all all trust',
      'host replication postgres 127.0.0.1/32 trust',
      'host all @admins 127.0.0.1/32 trust',
      ...(hasIncludes ? ['include_dir hba.d'] : ['host all hugo 10.1.0.0/16 reject']),
    ].join('\n'),
    'postgresql/main/admins': `postgres, "Ada L" @${etc}/more-admins\n`,
    'more-admins': 'grace\n',
    ...(hasIncludes ? { 'postgresql/main/hba.d/10.conf': 'host all hugo 10.1.0.0/16 reject\n' } : {}),
    'postgresql/main/pg_ident.conf': 'staff /^(.*)@his$ \\1\n',
  }
  for (const [path, text] of Object.entries(texts)) {
    await mkdir(dirname(join(etc, path)), { recursive: true })
    await writeFile(join(etc, path), text, { mode: 0o640 })
  }
  const [linked, text] = ['postgresql/main/conf.d/20-linked.conf', "idle_session_timeout = '98765ms'\n"]
  await writeFile(join(etc, 'linked.conf'), text, { mode: 0o640 })
  await symlink(join(etc, 'linked.conf'), join(etc, linked))
  texts[linked] = text
  await makeCertificate(join(etc, 'ssl'))
  await cluster.query("alter system set work_mem = '7MB'")
  await cluster.cluster.stop()
  for (const name of ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf']) await rm(join(directory, name))
  await cluster.cluster.start({ config_file: join(main, 'postgresql.conf') })
  return { etc, port, texts }
}

async function makeCertificate(directory: string): Promise<void> {
  await mkdir(join(directory, 'private'), { recursive: true })
  const [key, certificate] = [join(directory, 'private/server.key'), join(directory, 'server.crt')]
  const args = [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=his',
    '-keyout',
    key,
    '-out',
    certificate,
  ]
  await run('openssl', args)
  await chmod(key, 0o600)
}

export async function ask(port: number, text: string, ssl = false): Promise<Record<string, unknown>[]> {
  const connectionString = `postgres://postgres@127.0.0.1:${port}/postgres`
  const client = new pg.Client({ connectionString, ...(ssl ? { ssl: { rejectUnauthorized: false } } : {}) })
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(text)).rows
  } finally {
    await client.end()
  }
}

/** Starts a restored cluster as its operator would: with the command that the restore prints, and nothing else. */
export async function startAsPrinted(report: RestoreReport, port: number): Promise<AsyncDisposable> {
  try {
    await run('/bin/sh', ['-c', report.startCommand], { cwd: '/' })
  } catch (error) {
    const log = await readFile(join(report.directory, 'pg_wal/resus_recovery/server.log'), 'utf8').catch(String)
    throw new Error(`the printed command did not start the server:\n${log}`, { cause: error })
  }
  while ((await ask(port, 'select pg_is_in_recovery() as recovering'))[0]?.['recovering'] === true) await systemClock.sleep(20)
  return { [Symbol.asyncDispose]: () => endCluster(report.directory) }
}

export async function restoreOf(cluster: ProtectedCluster, to: string): Promise<{ report: RestoreReport; notices: string[] }> {
  const { repository, component, stateDirectory, configPath } = cluster
  const notices: string[] = []
  const report = await restorePostgres({
    repository,
    component,
    stateDirectory,
    configPath,
    to,
    target: { kind: 'latest' },
    clock: systemClock,
    signal: new AbortController().signal,
    onNotice: (text) => notices.push(text),
  })
  return { report, notices }
}

export async function checkItem(cluster: ProtectedCluster, name: string) {
  const items = await checkPostgres({ ...cluster, signal: new AbortController().signal })
  return items.find((item) => item.name === name)
}
