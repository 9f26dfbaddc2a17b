import { randomBytes } from 'node:crypto'
import { accessSync, constants } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { parseControlFile } from '../../postgres/control-file.ts'
import { findInstallation } from '../../postgres/installation.ts'
import { LEASE_PREFIX, timeName } from '../../repository/layout.ts'
import type { Repository } from '../../repository/repository.ts'
import { listBackups } from '../../repository/backups.ts'
import { getRecord, putObject } from '../../repository/sealed-object.ts'
import type { PostgresComponent } from './component.ts'
import { walkDataDirectory, type PassedOver } from './data-directory.ts'
import { CONFIGURATION_SETTINGS, findConfiguration } from './host-configuration.ts'
import { findRunningVersions, findServerVersions } from './installed-versions.ts'
import { compareVersions } from './server-versions.ts'
import { ServerSession, type ServerFacts } from './server-session.ts'

const PASSED_OVER_SHOWN = 10

/** One thing that a backup, a stream or a restore needs. A check that could not be made is "not proven". */
export interface CheckItem {
  readonly name: string
  readonly verdict: 'passed' | 'failed' | 'not proven'
  readonly expected: string
  readonly found: string
  readonly hint: string
}

export interface CheckOptions {
  readonly repository: Repository
  readonly component: PostgresComponent
  readonly stateDirectory: string
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Proves, before the first backup, that everything that is needed is in place. Never throws for what it checks. */
export async function checkPostgres(options: CheckOptions): Promise<CheckItem[]> {
  const items = [await checkStorage(options), await checkState(options), checkFiles(options.component)]
  return [...items, ...(await checkServer(options))]
}

/** Puts, reads and deletes an object, as a backup will. It is an expired lease: should we die here, it means nothing. */
async function checkStorage({ repository, clock, signal }: CheckOptions): Promise<CheckItem> {
  const now = new Date(clock.now()).toISOString()
  const name = `${LEASE_PREFIX}${timeName(clock.now())}-${randomBytes(16).toString('hex')}`
  const head = { run: 'check', component: '', purpose: 'check', startedAt: now, expiresAt: now }
  return await judge('storage takes and gives back objects', `one object, in ${repository.storage.description}`, async () => {
    await putObject(repository.storage, repository.ring, { kind: 'lease', name, head }, { signal })
    const read = await getRecord(repository.storage, repository.ring, { kind: 'lease', name }, { signal })
    await repository.storage.delete(name, { signal })
    return JSON.stringify(read) === JSON.stringify(head)
      ? passed('the same')
      : failed('another content', 'the storage does not keep what it is given')
  })
}

async function checkState({ stateDirectory }: CheckOptions): Promise<CheckItem> {
  return await judge('state directory can be written', `"${stateDirectory}"`, async () => {
    await mkdir(stateDirectory, { recursive: true, mode: 0o700 })
    accessSync(stateDirectory, constants.R_OK | constants.W_OK)
    return passed('it can')
  })
}

function checkFiles(component: PostgresComponent): CheckItem {
  const name = 'data directory can be read'
  const expected = `every file of "${component.dataDirectory}"`
  const hint = 'run Resus on the host of the database, as the user of the server (or as root)'
  const passedOver: string[] = []
  let files = 0
  try {
    const onPassedOver = ({ path, why }: PassedOver) => void passedOver.push(`"${path}" (${why})`)
    for (const entry of walkDataDirectory(component.dataDirectory, { onPassedOver })) {
      if (entry.kind !== 'file') continue
      accessSync(entry.absolutePath, constants.R_OK)
      files += 1
    }
    if (files === 0) return { name, expected, verdict: 'failed', found: 'no files', hint }
    if (passedOver.length > 0) {
      const found = `${files} files; passed over: ${passedOver.slice(0, PASSED_OVER_SHOWN).join(', ')}`
      const what = 'a backup leaves out what was passed over: PostgreSQL made none of it; move it out of the data directory'
      return { name, expected, verdict: 'not proven', found, hint: what }
    }
    return { name, expected, verdict: 'passed', found: `${files} files`, hint: '' }
  } catch (error) {
    return { name, expected, verdict: 'failed', found: error instanceof Error ? error.message : String(error), hint }
  }
}

async function checkServer(options: CheckOptions): Promise<CheckItem[]> {
  const { component } = options
  let facts: ServerFacts | undefined
  const items: CheckItem[] = []
  const connected = await judge('server answers', 'PostgreSQL 15 to 18', async () => {
    await using session = await ServerSession.connect(component)
    facts = await session.facts()
    items.push(...(await serverItems(options, session, facts)), await configurationItem(session, facts, component))
    items.push(...(await versionItems(options, session, facts)))
    return facts.major <= 18
      ? passed(`PostgreSQL ${facts.version}`)
      : notProven(`PostgreSQL ${facts.version}`, 'this Resus was not tested with it')
  })
  return [connected, ...items]
}

async function serverItems(options: CheckOptions, session: ServerSession, facts: ServerFacts): Promise<CheckItem[]> {
  const { component } = options
  const setting = async (name: string) =>
    (await session.query<{ value: string }>('select current_setting($1) as value', [name]))[0]!.value
  const rights = await session.query<{ replication: boolean; backup: boolean }>(
    `select rolreplication or rolsuper as replication,
       has_function_privilege('pg_backup_start(text, boolean)', 'execute') and has_function_privilege('pg_backup_stop(boolean)', 'execute') as backup
     from pg_roles where rolname = current_user`,
  )
  const { slot } = component.stream
  const senders = Number(await setting('max_wal_senders'))
  const slots = Number(await setting('max_replication_slots'))
  const keep = await setting('max_slot_wal_keep_size')
  return [
    await judge("data directory is the server's", facts.systemIdentifier, async () => {
      const control = parseControlFile(await readFile(join(component.dataDirectory, 'global/pg_control')))
      const found = control.systemIdentifier.toString()
      return found === facts.systemIdentifier
        ? passed(found)
        : failed(found, '"dataDirectory" and "connection" lead to two clusters')
    }),
    fact(
      'wal_level',
      'replica or logical',
      await setting('wal_level'),
      (value) => value !== 'minimal',
      'set wal_level = replica and restart the server',
    ),
    fact('max_wal_senders', 'at least 2', String(senders), () => senders >= 2, 'raise it: a receiver and a backup each take one'),
    fact(
      'max_replication_slots',
      'at least 2',
      String(slots),
      () => slots >= 2,
      'raise it: a receiver and a backup each take one',
    ),
    fact('right to replicate', 'yes', String(rights[0]?.replication), (value) => value === 'true', 'alter role ... replication'),
    fact(
      'right to back up',
      'yes',
      String(rights[0]?.backup),
      (value) => value === 'true',
      'grant execute on function pg_backup_start, pg_backup_stop',
    ),
    fact(
      'full_page_writes',
      'on',
      await setting('full_page_writes'),
      (value) => value === 'on',
      'turn it on: without it a torn page is not repaired',
    ),
    fact(
      'data checksums',
      'on',
      facts.dataChecksums ? 'on' : 'off',
      (value) => value === 'on',
      'without them corruption on the disk goes unseen: see pg_checksums --enable',
      'not proven',
    ),
    fact(
      `WAL kept for slot "${slot}"`,
      'a limit',
      keep,
      (value) => value !== '-1',
      'without max_slot_wal_keep_size a receiver that is away fills the disk of the server',
      'not proven',
    ),
    await installationItem(facts, component),
  ]
}

async function versionItems(
  { repository, component }: CheckOptions,
  session: ServerSession,
  facts: ServerFacts,
): Promise<CheckItem[]> {
  const running = await findServerVersions(component, session)
  const same = await judge('server is as in the newest backup', 'the same versions', async () => {
    const [newest] = await listBackups(repository, component.name, () => undefined)
    if (newest === undefined) return notProven('no backup yet', 'nothing to compare with')
    const differences = compareVersions(newest.server, await findRunningVersions(facts, running, session))
    if (differences.length === 0) return passed(`as in ${newest.id}`)
    const found = differences.map(({ what, backup, here }) => `${what} ${here}, was ${backup}`).join('; ')
    return notProven(found, differences.map(({ what, consequence }) => `${what}: ${consequence}`).join('; '))
  })
  const stale = running.databases.filter(
    ({ collationVersion, actualVersion }) => collationVersion !== actualVersion && actualVersion !== null,
  )
  const found = stale
    .map(({ name, collationVersion, actualVersion }) => `"${name}": ${collationVersion}, here ${actualVersion}`)
    .join('; ')
  const hint = 'indexes on text may be wrong now, and in each backup: REINDEX, then ALTER DATABASE ... REFRESH COLLATION VERSION'
  return [same, fact('collations', 'those that the indexes were made with', found || 'the same', () => stale.length === 0, hint)]
}

/** A backup without the configuration could not be started: what a backup refuses or would tell of is found before. */
async function configurationItem(session: ServerSession, facts: ServerFacts, component: PostgresComponent): Promise<CheckItem> {
  return await judge('configuration can be backed up', 'all files that the server starts with', async () => {
    const found = findConfiguration({
      major: facts.major,
      serverDirectory: facts.dataDirectory,
      dataDirectory: component.dataDirectory,
      settings: await session.settings(CONFIGURATION_SETTINGS),
    })
    if (found === undefined) return passed('all in the data directory')
    const { problems } = found.manifest
    if (problems.length === 0) return passed(`${found.files.length} files outside the data directory`)
    const all = problems.map(({ path, problem }) => `${path}: ${problem}`).join('; ')
    return failed(all, 'the server itself would find this at its next start: correct its configuration')
  })
}

async function installationItem(facts: ServerFacts, component: PostgresComponent): Promise<CheckItem> {
  const found = await findInstallation(facts.major, component.binaries)
  const hint = `a restore on this host needs the programs of PostgreSQL ${facts.major}; install them, or name them in "binaries"`
  return fact(
    `programs of PostgreSQL ${facts.major}`,
    'on this host',
    found?.binDirectory ?? 'none',
    () => found !== undefined,
    hint,
    'not proven',
  )
}

function fact(
  name: string,
  expected: string,
  found: string,
  ...[good, hint, otherwise = 'failed']: [(found: string) => boolean, string, ('failed' | 'not proven')?]
): CheckItem {
  const verdict = good(found) ? 'passed' : otherwise
  return { name, expected, found, verdict, hint: verdict === 'passed' ? '' : hint }
}

type Judgement = Pick<CheckItem, 'verdict' | 'found' | 'hint'>

const passed = (found: string): Judgement => ({ verdict: 'passed', found, hint: '' })
const failed = (found: string, hint: string): Judgement => ({ verdict: 'failed', found, hint })
const notProven = (found: string, hint: string): Judgement => ({ verdict: 'not proven', found, hint })

async function judge(name: string, expected: string, check: () => Promise<Judgement>): Promise<CheckItem> {
  try {
    return { name, expected, ...(await check()) }
  } catch (error) {
    const hint = error instanceof Failure ? (error.hint ?? '') : ''
    return { name, expected, ...failed(error instanceof Error ? error.message : String(error), hint) }
  }
}
