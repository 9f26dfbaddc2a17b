import { accessSync, constants } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseControlFile } from '../../postgres/control-file.ts'
import { findInstallation } from '../../postgres/installation.ts'
import type { Repository } from '../../repository/repository.ts'
import { listBackups } from '../../repository/backups.ts'
import { accessItems } from './check-access.ts'
import { judgePrivacy } from './check-connection.ts'
import { fact, failed, judge, notProven, passed, type CheckItem } from './check-item.ts'
import type { PostgresComponent } from './component.ts'
import { walkDataDirectory, type PassedOver } from './data-directory.ts'
import { CONFIGURATION_SETTINGS, findConfiguration } from './host-configuration.ts'
import { findRunningVersions, findServerVersions } from './installed-versions.ts'
import { nearestExisting } from './scratch.ts'
import { compareVersions } from './server-versions.ts'
import { ServerSession, type ServerFacts } from './server-session.ts'

const PASSED_OVER_SHOWN = 10

export interface CheckOptions {
  /** Undefined when it does not open: what needs it is then not proven. */
  readonly repository: Repository | undefined
  readonly component: PostgresComponent
  readonly stateDirectory: string
  readonly signal: AbortSignal
}

/** Proves, before the first backup, that everything that is needed on this host and its server is in place. Changes nothing. Never throws for what it checks. */
export async function checkPostgres(options: CheckOptions): Promise<CheckItem[]> {
  const items = [await checkState(options), checkFiles(options.component)]
  return [...items, ...(await checkServer(options))]
}

/** Makes nothing: a check may be all that is wanted. */
async function checkState({ stateDirectory }: CheckOptions): Promise<CheckItem> {
  return await judge('state directory can be written', `"${stateDirectory}"`, async () => {
    const there = await nearestExisting(stateDirectory)
    accessSync(there, constants.R_OK | constants.W_OK)
    return passed(there === stateDirectory ? 'it can' : `it can be made in "${there}"`)
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
    items.push(await checkPrivacy(component, session))
    facts = await session.facts()
    items.push(...(await serverItems(options, session, facts)), await configurationItem(session, facts, component))
    items.push(...(await versionItems(options, session, facts)), ...(await accessItems(component, session, options.signal)))
    return facts.major <= 18
      ? passed(`PostgreSQL ${facts.version}`)
      : notProven(`PostgreSQL ${facts.version}`, 'this Resus was not tested with it')
  })
  return [connected, ...items]
}

async function checkPrivacy({ connection, stream }: PostgresComponent, session: ServerSession): Promise<CheckItem> {
  return await judge('connection is private', 'on this host, or verified TLS', async () =>
    judgePrivacy(connection.reveal().toString('utf8'), session.socket, stream.hosts),
  )
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
    if (repository === undefined) return notProven('the repository does not open', 'open it first')
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
