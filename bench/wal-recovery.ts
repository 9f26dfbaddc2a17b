import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { assert } from '../src/assert.ts'
import { freePort, initCluster, killCluster, startCluster } from '../src/postgres/cluster-process.ts'
import { requireInstallation, type Installation } from '../src/postgres/installation.ts'
import { reexecAsOrdinaryUser } from '../src/postgres/staged-runtime.ts'
import { quoteShell } from '../src/protect/postgres/recovery-settings.ts'
import { measureCommand } from './measured-command.ts'

// `node bench/wal-recovery.ts [--wal-mb 1024 --rounds 3 --major 15]`: recovery of so much WAL with the restore_command of Resus, and with the WAL
// in a local directory and `cp`, by turns. Prints the seconds of each and the ratio.

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url))
const RESUS = join(CHECKOUT, 'resus')
const WAIT_MS = 600_000
const QUIET = {
  listen_addresses: '127.0.0.1',
  shared_buffers: '256MB',
  fsync: 'off',
  dynamic_shared_memory_type: 'mmap',
  autovacuum: 'off',
}

interface Bench {
  readonly home: string
  readonly installation: Installation
  readonly config: string
  /** Whole segments, as archive_command `cp` has put them there. */
  readonly archive: string
}

const args = process.argv.slice(2)
process.exitCode = (await reexecAsOrdinaryUser({ checkout: CHECKOUT, entry: import.meta.filename, args })) ?? (await main())

async function main(): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      'wal-mb': { type: 'string', default: '1024' },
      rounds: { type: 'string', default: '3' },
      major: { type: 'string', default: '15' },
    },
  })
  const home = await mkdtemp(join(tmpdir(), 'resus-wal-bench-'))
  try {
    const bench = await makeWal(home, { walMb: Number(values['wal-mb']), major: Number(values.major) })
    const seconds = { resus: [] as number[], cp: [] as number[] }
    for (let round = 0; round < Number(values.rounds); round += 1) {
      for (const kind of round % 2 === 0 ? (['resus', 'cp'] as const) : (['cp', 'resus'] as const)) {
        seconds[kind].push(await recover(bench, kind))
        process.stderr.write(`round ${round + 1}: ${kind} ${seconds[kind].at(-1)!.toFixed(2)} s\n`)
      }
    }
    const median = (list: readonly number[]) => list.toSorted((left, right) => left - right)[Math.floor(list.length / 2)]!
    const ratio = median(seconds.resus) / median(seconds.cp)
    process.stdout.write(
      `${JSON.stringify({ walMb: Number(values['wal-mb']), seconds, ratio: Number(ratio.toFixed(3)) }, null, 2)}\n`,
    )
    return 0
  } finally {
    await rm(home, { recursive: true, force: true })
  }
}

async function makeWal(home: string, options: { walMb: number; major: number }): Promise<Bench> {
  const installation = await requireInstallation(options.major)
  const directory = join(home, 'data')
  const archive = join(home, 'archive')
  await mkdir(archive)
  await initCluster({ installation, directory, dataChecksums: true, sync: false })
  const port = await freePort()
  const connectionString = `postgres://postgres@127.0.0.1:${port}/postgres`
  const config = await writeConfiguration(home, { connectionString, directory })
  const settings = {
    ...QUIET,
    archive_mode: 'on',
    archive_command: `cp "%p" ${quoteShell(archive)}/%f`,
    max_wal_size: '4GB',
    checkpoint_timeout: '1h',
  }
  await startCluster({
    installation,
    directory,
    port,
    socketDirectory: join(home, 's'),
    logFile: join(home, 'server.log'),
    settings,
  })
  try {
    await measureCommand(RESUS, ['init', '--config', config])
    const client = new pg.Client({ connectionString })
    await client.connect()
    await client.query('create table visits (id bigint, note text)')
    await measureCommand(RESUS, ['backup', '--config', config])
    const stream = spawn(RESUS, ['stream', '--config', config], { stdio: 'ignore' })
    await writeUntil(client, options.walMb)
    const { rows } = await client.query<{ name: string }>('select pg_walfile_name(pg_switch_wal()) as name')
    const last = rows[0]!.name
    await waitUntil('all is archived', async () => (await readdir(archive)).includes(last))
    await waitUntil('all is in the repository', async () =>
      (await readdir(join(home, 'repository'), { recursive: true })).some((path) => path.endsWith(`/${last}`)),
    )
    stream.kill('SIGTERM')
    await once(stream, 'exit')
    await client.end()
  } finally {
    await killCluster(directory)
  }
  return { home, installation, config, archive }
}

async function writeUntil(client: pg.Client, walMb: number): Promise<void> {
  const { rows: begun } = await client.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn')
  for (let done = 0; done < walMb * 1024 * 1024;) {
    await client.query(`insert into visits select i, repeat(md5(random()::text), 20) from generate_series(1, 20000) i`)
    const { rows } = await client.query<{ bytes: string }>('select pg_wal_lsn_diff(pg_current_wal_lsn(), $1)::text as bytes', [
      begun[0]!.lsn,
    ])
    done = Number(rows[0]!.bytes)
  }
}

/** Restores, starts, and gives the seconds from the start to the end of recovery. */
async function recover(bench: Bench, kind: 'resus' | 'cp'): Promise<number> {
  const { home, installation, config, archive } = bench
  const directory = join(home, 'restored')
  await rm(directory, { recursive: true, force: true })
  await measureCommand(RESUS, ['restore', '--config', config, '--to', directory])
  if (kind === 'cp') {
    const path = join(directory, 'postgresql.auto.conf')
    const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => !line.startsWith('restore_command'))
    await writeFile(path, [...lines, `restore_command = 'cp ${quoteShell(archive)}/%f "%p"'`, ''].join('\n'))
  }
  const port = await freePort()
  const begun = performance.now()
  try {
    await startCluster({
      installation,
      directory,
      port,
      socketDirectory: join(home, 'r'),
      logFile: join(home, `${kind}.log`),
      settings: QUIET,
      timeoutSeconds: 600,
    })
    const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${port}/postgres` })
    await client.connect()
    await waitUntil('recovery has ended', async () => {
      const { rows } = await client.query<{ recovering: boolean }>('select pg_is_in_recovery() as recovering')
      return rows[0]?.recovering === false
    })
    const seconds = (performance.now() - begun) / 1000
    await client.end()
    return seconds
  } finally {
    await killCluster(directory)
  }
}

async function waitUntil(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const begun = performance.now(); !(await holds()); await delay(20)) {
    assert(performance.now() - begun < WAIT_MS, what)
  }
}

async function writeConfiguration(home: string, cluster: { connectionString: string; directory: string }): Promise<string> {
  await writeFile(join(home, 'passphrase'), 'only for this bench', { mode: 0o600 })
  const path = join(home, 'resus.yaml')
  const configuration = {
    system: 'bench-his',
    state: join(home, 'state'),
    repository: {
      storages: [{ name: 'main', kind: 'directory', path: join(home, 'repository') }],
      key: { passphrase: `file:${join(home, 'passphrase')}` },
    },
    components: {
      db: { kind: 'postgres', tier: 'critical', connection: cluster.connectionString, dataDirectory: cluster.directory },
    },
  }
  // JSON is YAML.
  await writeFile(path, JSON.stringify(configuration))
  return path
}
