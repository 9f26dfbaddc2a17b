import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chownSync, mkdirSync } from 'node:fs'
import { chmod, chown, lstat, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import test, { type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { endCluster, freePort } from '../../src/postgres/cluster-process.ts'
import { ordinaryUser, type OrdinaryUser } from '../../src/postgres/ordinary-user.ts'
import { assertReachable } from '../../src/postgres/staged-runtime.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

// `npm test` runs as an ordinary user, even for root. This one is run by root itself:
//   node_modules/.bin/node --test test/integration/restore-by-root.test.ts

const run = promisify(execFile)
const COUNTS = 'select (select count(*)::int from visits) visits, (select count(*)::int from scans) scans'
const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))

for (const major of [15, 18]) {
  test(
    `PostgreSQL ${major}: a restore by root gives everything its owner and mode, and shows nothing to others meanwhile`,
    { skip: await skipUnlessRoot(major) },
    async (t) => {
      const user = ordinaryUser()!
      // 15 lets the group read, 18 does not.
      const group = major === 15 ? ['--allow-group-access'] : []
      const cluster = await protectedCluster(t, {
        major,
        settings: { autovacuum: 'off' },
        initArguments: (home) => ['-X', directoryOf(user, join(home, 'wal')), ...group],
      })
      const port = await freePort()
      const tablespace = await fill(cluster, user, port)
      await cluster.backup()
      await cluster.query('insert into visits values (0)')
      await cluster.backup()
      await run('chown', ['-R', `${user.uid}:${user.gid}`, dirname(cluster.configPath)])

      const to = join(cluster.cluster.home, 'restored')
      const scans = join(cluster.cluster.home, 'scans-restored')
      const report = await restoreWatched(cluster, to, { old: tablespace, new: scans })
      await assertOwners(cluster, { to, scans, tablespace }, user)
      await assertStarts(t, report, { user, port, visits: 1001 })
      await endCluster(to)

      // What a crash left in pg_wal is published by root, and read by the server's user.
      await cluster.query('insert into visits values (-1)')
      await cluster.cluster.kill()
      const delta = await cluster.restore({ kind: 'latest' }, cluster.cluster.directory, { delta: true })
      assert.ok(delta.localWalBytes > 0)
      await assertStarts(t, delta, { user, port, visits: 1002 })
      for (const [path, owner] of await owners(cluster.repositoryDirectory)) {
        assert.ok(owner.startsWith(`${user.uid}:${user.gid} `), `${path} in the repository is ${owner}`)
      }
    },
  )
}

async function skipUnlessRoot(major: number): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'only root can give files away: run this file by root, as its first lines say'
  try {
    await assertReachable(CHECKOUT)
  } catch {
    return 'the server has to run Resus from this checkout, which other accounts cannot enter'
  }
  return await skipUnlessInstalled(major)
}

function directoryOf(user: OrdinaryUser, path: string): string {
  mkdirSync(path)
  chownSync(path, user.uid, user.gid)
  return path
}

/** Data, a tablespace, and files whose owner or mode is not that of most; gives the tablespace's path. */
async function fill(source: ProtectedCluster, user: OrdinaryUser, port: number): Promise<string> {
  const { cluster } = source
  const path = directoryOf(user, join(cluster.home, 'scans'))
  await source.query(`create tablespace scans location '${path}'`)
  await source.query('create table visits as select generate_series(1, 1000) id')
  await source.query('create table scans tablespace scans as select generate_series(1, 1000) id')
  const settings = {
    port,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: join(cluster.home, 'socket'),
    dynamic_shared_memory_type: 'mmap',
  }
  for (const [name, value] of Object.entries(settings)) await source.query(`alter system set ${name} = '${value}'`)
  // PostgreSQL takes a private key that is root's and that its group may read. In the data directory nobody else reads what anybody may.
  const key = join(cluster.directory, 'server.key')
  await writeFile(key, 'a private key')
  await chown(key, 0, user.gid)
  await chmod(key, 0o640)
  await writeFile(join(cluster.directory, 'open.conf'), 'a password')
  await chown(join(cluster.directory, 'open.conf'), user.uid, user.gid)
  await chmod(join(cluster.directory, 'open.conf'), 0o644)
  return path
}

/** Restores with a umask that hides nothing, and looks all the time whether another account could read anything. */
async function restoreWatched(
  cluster: ProtectedCluster,
  to: string,
  mapping: { readonly old: string; readonly new: string },
): Promise<RestoreReport> {
  const umask = process.umask(0)
  const seen = new Set<string>()
  let looks = 0
  let done = false
  const watching = (async () => {
    for (; !done; looks += 1) {
      for (const place of [to, mapping.new]) await openToOthers(place, seen)
      await turn()
    }
  })()
  try {
    return await cluster.restore({ kind: 'latest' }, to, { tablespaceMappings: [mapping] })
  } finally {
    done = true
    await watching
    process.umask(umask)
    assert.ok(looks > 1, `${looks} looks`)
    assert.deepEqual([...seen], [], 'another account could have read these')
  }
}

/** Adds what others could read below a directory that they may enter. */
async function openToOthers(directory: string, seen: Set<string>): Promise<void> {
  const stats = await lstat(directory).catch(() => undefined)
  if (stats === undefined || (stats.mode & 0o001) === 0) return
  if ((stats.mode & 0o004) !== 0) seen.add(`${directory} ${(stats.mode & 0o7777).toString(8)}`)
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) await openToOthers(path, seen)
    const found = entry.isFile() ? await lstat(path).catch(() => undefined) : undefined
    if (found !== undefined && (found.mode & 0o004) !== 0) seen.add(`${path} ${(found.mode & 0o7777).toString(8)}`)
  }
}

async function assertOwners(
  { cluster }: ProtectedCluster,
  places: { readonly to: string; readonly scans: string; readonly tablespace: string },
  user: OrdinaryUser,
): Promise<void> {
  const { to, scans, tablespace } = places
  const [there, here] = [await owners(cluster.directory), await owners(to)]
  const made: string[] = []
  for (const [path, owner] of here) {
    const expected = there.get(path)
    if (expected !== undefined) assert.equal(owner, expected, path)
    else made.push(path)
  }
  assert.equal(here.get('server.key'), `0:${user.gid} 640`)
  const directory = here.get('')!
  const own = [`${user.uid}:${user.gid} 600`, `${user.uid}:${user.gid} 640`, `${user.uid}:${user.gid} 700`, directory]
  for (const path of made) assert.ok(own.includes(here.get(path)!), `${path} is ${here.get(path)}`)
  for (const path of ['backup_label', 'backup_manifest', 'recovery.signal', 'pg_wal', 'pg_wal/resus_recovery/plan.json']) {
    assert.ok(made.includes(path), `${path} is not among ${made.join(', ')}`)
  }
  assert.equal(here.get('pg_wal'), directory)
  assert.ok((await lstat(join(cluster.directory, 'pg_wal'))).isSymbolicLink())
  const [thereScans, hereScans] = [await owners(tablespace), await owners(scans)]
  assert.deepEqual(hereScans, new Map([...thereScans].filter(([path]) => hereScans.has(path))))
  assert.ok(hereScans.size > 2)
}

/** `uid:gid mode` of what lies below a directory, and of itself (''), but for links. */
async function owners(directory: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for (const path of ['', ...(await readdir(directory, { recursive: true }))]) {
    const { uid, gid, mode, isLink } = await lstat(join(directory, path)).then((stats) => ({
      uid: stats.uid,
      gid: stats.gid,
      mode: stats.mode,
      isLink: stats.isSymbolicLink(),
    }))
    if (!isLink) found.set(path, `${uid}:${gid} ${(mode & 0o7777).toString(8)}`)
  }
  return found
}

/** By the command that the restore printed, as root would give it. */
async function assertStarts(
  t: TestContext,
  { directory, startCommand }: RestoreReport,
  { user, port, visits }: { user: OrdinaryUser; port: number; visits: number },
): Promise<void> {
  t.after(() => endCluster(directory))
  await run('/bin/sh', ['-c', startCommand]).catch(async (error: unknown) => {
    assert.fail(`${String(error)}\n${await readFile(join(directory, 'pg_wal/resus_recovery/server.log'), 'utf8').catch(String)}`)
  })
  const pid = (await readFile(join(directory, 'postmaster.pid'), 'utf8')).split('\n')[0]!
  assert.equal((await stat(`/proc/${pid}`)).uid, user.uid)
  const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${port}/postgres` })
  await client.connect()
  try {
    const { rows } = await client.query(COUNTS)
    assert.deepEqual(rows, [{ visits, scans: 1000 }])
  } finally {
    await client.end()
  }
}
