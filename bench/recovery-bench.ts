import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { assert } from '../src/assert.ts'
import { endCluster, freePort, initCluster, startCluster } from '../src/postgres/cluster-process.ts'
import { requireInstallation, type Installation } from '../src/postgres/installation.ts'
import { quoteShell } from '../src/protect/postgres/recovery-settings.ts'
import { BENCH_MAJOR } from './cluster.ts'
import { settleDisk } from './machine.ts'
import { measureCommand } from './measured-command.ts'
import { spreadOf, type Figures, type Ratio } from './report.ts'
import { writeBenchConfiguration } from './resus.ts'

// `npm run bench -- --only recovery [--recovery-mb 512 --rounds 3]`: recovery of so much WAL with the restore_command of Resus, and with the WAL
// in a local directory and `cp`, by turns. From the start of the server to the end of recovery.

const RESUS = fileURLToPath(new URL('../resus', import.meta.url))
const WAIT_MS = 600_000
const QUIET = {
  listen_addresses: '127.0.0.1',
  shared_buffers: '256MB',
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

/** Of the recovering server. `on` is what a hospital runs with. */
const FSYNCS = ['on', 'off'] as const
type Fsync = (typeof FSYNCS)[number]

export interface RecoveryBenchOptions {
  readonly home: string
  readonly rounds: number
  readonly walMb: number
  readonly onStep: (text: string) => void
}

export interface RecoverySamples {
  readonly walMb: number
  readonly figures: Figures
  readonly loads: readonly number[]
}

export async function benchRecovery(options: RecoveryBenchOptions): Promise<RecoverySamples> {
  const { home, rounds, walMb, onStep } = options
  onStep(`making ${walMb} MB of WAL`)
  const bench = await makeWal(home, walMb)
  const figures: Record<string, number[]> = {}
  const loads: number[] = []
  for (let round = 0; round < rounds; round += 1) {
    loads.push(loadavg()[0]!)
    for (const fsync of FSYNCS) {
      // Whoever goes first in one round goes last in the next.
      for (const kind of round % 2 === 0 ? (['Resus', 'cp'] as const) : (['cp', 'Resus'] as const)) {
        onStep(`round ${round + 1} of ${rounds}: recovery with ${kind}, fsync ${fsync}`)
        const { restoreSeconds, recoverySeconds } = await recover(bench, { kind, fsync })
        ;(figures[recoveryName(kind, fsync)] ??= []).push(recoverySeconds)
        ;(figures['restore before it seconds'] ??= []).push(restoreSeconds)
      }
    }
  }
  return { walMb, figures, loads }
}

export function recoveryRatios({ figures }: RecoverySamples): Ratio[] {
  return FSYNCS.map((fsync) => ({
    name: `recovery, fsync ${fsync}: time, of that with a local directory and cp`,
    value: spreadOf(figures[recoveryName('Resus', fsync)]!).median / spreadOf(figures[recoveryName('cp', fsync)]!).median,
    target: fsync === 'on' ? '<= 1' : '-',
  }))
}

function recoveryName(kind: 'Resus' | 'cp', fsync: Fsync): string {
  return `${kind} recovery, fsync ${fsync} seconds`
}

async function makeWal(home: string, walMb: number): Promise<Bench> {
  const installation = await requireInstallation(BENCH_MAJOR)
  const directory = join(home, 'data')
  const archive = join(home, 'archive')
  await mkdir(archive)
  await initCluster({ installation, directory, dataChecksums: true, sync: false })
  const port = await freePort()
  const connectionString = `postgres://postgres@127.0.0.1:${port}/postgres`
  const config = await writeBenchConfiguration(home, { connectionString, directory, installation })
  const settings = {
    ...QUIET,
    fsync: 'off',
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
    await writeUntil(client, walMb)
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
    await endCluster(directory)
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
async function recover(
  bench: Bench,
  { kind, fsync }: { kind: 'Resus' | 'cp'; fsync: Fsync },
): Promise<{ restoreSeconds: number; recoverySeconds: number }> {
  const { home, installation, config, archive } = bench
  const directory = join(home, 'restored')
  await rm(directory, { recursive: true, force: true })
  const restored = await measureCommand(RESUS, ['restore', '--config', config, '--to', directory])
  if (kind === 'cp') {
    const path = join(directory, 'postgresql.auto.conf')
    const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => !line.startsWith('restore_command'))
    await writeFile(path, [...lines, `restore_command = 'cp ${quoteShell(archive)}/%f "%p"'`, ''].join('\n'))
  }
  await settleDisk()
  const port = await freePort()
  const begun = performance.now()
  try {
    await startCluster({
      installation,
      directory,
      port,
      socketDirectory: join(home, 'r'),
      logFile: join(home, `${kind}.log`),
      settings: { ...QUIET, fsync },
      timeoutSeconds: 600,
    })
    const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${port}/postgres` })
    await client.connect()
    await waitUntil('recovery has ended', async () => {
      const { rows } = await client.query<{ recovering: boolean }>('select pg_is_in_recovery() as recovering')
      return rows[0]?.recovering === false
    })
    const recoverySeconds = (performance.now() - begun) / 1000
    await client.end()
    return { restoreSeconds: restored.seconds, recoverySeconds }
  } finally {
    await endCluster(directory)
  }
}

async function waitUntil(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const begun = performance.now(); !(await holds()); await delay(20)) {
    assert(performance.now() - begun < WAIT_MS, what)
  }
}
