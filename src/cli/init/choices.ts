import { hostname } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { Failure } from '../../errors.ts'
import { findLocalServers, readLocalServer, type LocalServer } from '../../postgres/local-servers.ts'
import { realPlace } from '../../postgres/running-clusters.ts'
import { tierSchema } from '../../protect/postgres/component.ts'
import type { Dialogue } from './dialogue.ts'
import { proposeStorage, shareDisk } from './disks.ts'
import type { InitOptions } from './options.ts'
import { DEFAULT_CONFIG, placesOf, type Places } from './places.ts'
import { isThere } from './write-once.ts'

const FALLBACK_STORAGE = '/mnt/backup/resus'
export const DEFAULT_SLOT = 'resus'
export const DEFAULT_COMPONENT = 'db'
const COMPONENT = /^[a-z0-9][a-z0-9._-]{0,62}$/

/** All that a new configuration needs to be told. Paths are absolute. */
export interface Choices extends Places {
  readonly configPath: string
  readonly server: LocalServer
  readonly system: string
  readonly component: string
  readonly tier: string
  readonly storage: string
  readonly synchronous: boolean
  readonly slot: string
}

interface Asking {
  readonly dialogue: Dialogue
  readonly options: InitOptions
  /** Undefined when neither the command line nor the environment names it. */
  readonly configPath: string | undefined
}

/** Asks for what the command line does not say. Nothing is written. Throws ARGUMENTS_INVALID. */
export async function makeChoices(asking: Asking): Promise<Choices> {
  const { dialogue, options } = asking
  const server = await chooseServer(asking)
  const configPath = resolve(asking.configPath ?? (await chooseConfig(dialogue)))
  const proposal = hostname().split('.')[0] || 'hospital'
  const system = await dialogue.ask({
    flag: '--system <name>',
    text: 'Name of the system',
    proposal,
    given: options.system,
    problem: (answer) => (answer.length <= 200 ? undefined : '200 characters at most'),
  })
  const tier = await dialogue.ask({
    flag: '--tier <tier>',
    text: `Tier (${tierSchema.options.join(', ')})`,
    proposal: 'critical',
    given: options.tier,
    problem: (answer) => (tierSchema.safeParse(answer).success ? undefined : `one of ${tierSchema.options.join(', ')}`),
  })
  const storage = await chooseStorage(asking, server)
  const synchronous = await dialogue.confirm({
    text: 'Shall commits wait for Resus (zero loss; while Resus is away they wait until it is back)?',
    flag: '--synchronous or --no-synchronous',
    proposal: false,
    given: options.synchronous,
  })
  const component = options.component ?? DEFAULT_COMPONENT
  if (!COMPONENT.test(component)) {
    throw new Failure('ARGUMENTS_INVALID', `--component is "${component}", wanted lower-case letters, digits, ".", "_" and "-"`)
  }
  return {
    ...placesOf(configPath, options),
    configPath,
    server,
    system,
    component,
    tier,
    storage,
    synchronous,
    slot: DEFAULT_SLOT,
  }
}

/** `- "/var/lib/postgresql/18/main": PostgreSQL 18, port 5432` */
export function describeServers(servers: readonly LocalServer[]): string {
  return servers
    .map(({ dataDirectory, major, port }, index) => `  ${index + 1}. ${dataDirectory} (PostgreSQL ${major}, port ${port})`)
    .join('\n')
}

/** The server that is to be protected: the one that is named, the only one, or the one that is chosen. */
export async function chooseServer({ dialogue, options }: Pick<Asking, 'dialogue' | 'options'>): Promise<LocalServer> {
  if (options.cluster !== undefined) return await namedServer(options.cluster)
  const servers = await protectable(await findLocalServers())
  const [first, second] = servers
  if (first === undefined) {
    throw new Failure('ARGUMENTS_INVALID', 'no running PostgreSQL was found that this account can see', {
      hint: 'start the server; run this as root or as the account of the server; or name its data directory: --cluster <directory>',
    })
  }
  const list = describeServers(servers)
  if (second !== undefined && !dialogue.isTerminal) {
    throw new Failure('ARGUMENTS_INVALID', `which of these clusters?\n${list}`, { hint: 'add --cluster <data directory>' })
  }
  dialogue.show(`Running clusters that were found:\n${list}`)
  const answer = await dialogue.ask({
    flag: '--cluster <data directory>',
    text: 'Which one is to be protected (number or data directory)',
    // Of several none is more likely: Enter must not choose.
    proposal: second === undefined ? '1' : undefined,
    given: undefined,
    problem: (given) => (pick(servers, given) === undefined ? 'none of these' : undefined),
  })
  return pick(servers, answer)!
}

/** Not the store of a "resus serve" on this host: it is a cache. */
async function protectable(servers: readonly LocalServer[]): Promise<LocalServer[]> {
  const own = await Promise.all(servers.map(({ dataDirectory }) => isThere(join(dirname(dataDirectory), 'administrator-token'))))
  return servers.filter((_, index) => own[index] !== true)
}

function pick(servers: readonly LocalServer[], answer: string): LocalServer | undefined {
  return servers[Number(answer) - 1] ?? servers.find(({ dataDirectory }) => dataDirectory === answer)
}

async function namedServer(path: string): Promise<LocalServer> {
  const dataDirectory = await realPlace(path)
  const server = await readLocalServer(dataDirectory)
  if (server !== undefined) return server
  throw new Failure('ARGUMENTS_INVALID', `no server that this account can see runs on "${dataDirectory}"`, {
    hint: 'start it, or correct --cluster; run this on its host, as root or as the account of the server',
  })
}

async function chooseConfig(dialogue: Dialogue): Promise<string> {
  return await dialogue.ask({
    flag: '--config <path>',
    text: 'Configuration file',
    proposal: DEFAULT_CONFIG,
    given: undefined,
    problem: async (answer) =>
      (await isThere(answer)) ? 'it is there already: name it with --config to go on from it' : undefined,
  })
}

/** One disk that fails must not take the database and its backups. */
async function chooseStorage({ dialogue, options }: Asking, { dataDirectory }: LocalServer): Promise<string> {
  const shared = (path: string) => shareDisk(path, dataDirectory)
  const warning = 'it is on the disk of the data directory: one that fails would take both'
  const mayShare = options.sameDevice
  const storage = resolve(
    await dialogue.ask({
      flag: '--storage <directory>',
      text: 'Directory of the repository, on another disk than the database',
      proposal: (await proposeStorage(dataDirectory)) ?? FALLBACK_STORAGE,
      given: options.storage,
      problem: async (answer) => {
        if (!answer.startsWith('/')) return 'an absolute path'
        // Somebody who is there is asked below.
        if (mayShare || dialogue.isTerminal || !(await shared(answer))) return undefined
        return `${warning}. To have it there all the same, add --same-device`
      },
    }),
  )
  if (!(await shared(storage))) return storage
  dialogue.show(`WARNING: "${storage}": ${warning}.`)
  const text = 'Put the repository there all the same?'
  const agreed = await dialogue.confirm({ text, flag: '--same-device', proposal: false, ...(mayShare ? { given: true } : {}) })
  if (agreed) return storage
  throw new Failure('ARGUMENTS_INVALID', `"${storage}" is on the disk of the data directory`, {
    hint: 'mount another disk or share, and name a directory on it: --storage <directory>',
  })
}
