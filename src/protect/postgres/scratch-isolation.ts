import { readFile, readlink, stat } from 'node:fs/promises'
import { systemErrorCode } from '../../errors.ts'
import type { Account } from '../../postgres/cluster-process.ts'
import type { Confinement } from './scratch-confinement.ts'

// What a scratch server is kept from, as it was seen while it ran (docs/drills.md, "The scratch place"), not as it was meant.

export interface IsolationFact {
  readonly what: string
  /** Null: it could not be seen. */
  readonly holds: boolean | null
  readonly why: string
}

export interface SeenServer {
  readonly pid: number
  readonly confinement: Confinement
  readonly socketDirectory: string
  /** Whom the files belonged to, and whom the server runs as. */
  readonly owner: Account
  readonly account: Account
  /** What must not be within its reach: storages, data directories, the configuration. */
  readonly forbidden: readonly string[]
  /** Settings that must be in force, and those that are: by their names. */
  readonly wanted: Readonly<Record<string, string>>
  readonly found: Readonly<Record<string, string>>
  readonly limits: string
}

/** Looks at a server that runs. What the system does not tell is not known, and never taken for granted. */
export async function seeIsolation(server: SeenServer): Promise<IsolationFact[]> {
  return [
    await seeSocket(server),
    seeSettings(server),
    await seeNetwork(server),
    await seeFiles(server),
    await seeUser(server),
    await seeRights(server),
    {
      what: 'WAL without key or repository',
      holds: true,
      why: 'it is laid out by whoever restored it, as the frozen plan has it, where the server may only read',
    },
    { what: 'limits', holds: true, why: server.limits },
    {
      what: 'scratch encrypted',
      holds: false,
      why: 'it is written in clear, and removed: encrypting it takes a block device of its own, which is not set up here',
    },
  ]
}

async function seeSocket({ socketDirectory }: SeenServer): Promise<IsolationFact> {
  const what = 'reached by nobody else'
  const info = await stat(socketDirectory).catch(() => undefined)
  if (info === undefined) return unseen(what)
  const mode = info.mode & 0o777
  return { what, holds: mode === 0o700, why: `a socket in a directory of mode ${mode.toString(8)}, no TCP port` }
}

function seeSettings({ wanted, found }: SeenServer): IsolationFact {
  const what = 'settings of the cluster not in force'
  const names = Object.keys(found)
  const others = names.filter((name) => normal(found[name]!) !== normal(wanted[name] ?? ''))
  if (names.length === 0) return unseen(what)
  if (others.length > 0) return { what, holds: false, why: `in force otherwise: ${others.join(', ')}` }
  const why = `${names.length} settings are as we set them; its configuration, pg_hba.conf and preload libraries are not read; archiving, replication, subscriptions, event triggers and jobs are off`
  return { what, holds: true, why }
}

/** An archive_command of a server that does not archive is shown so. */
function normal(value: string): string {
  return value === '(disabled)' ? '' : value
}

async function seeNetwork({ pid, confinement }: SeenServer): Promise<IsolationFact> {
  const what = 'no way out to the network'
  const [own, its] = await Promise.all(['self', pid].map(async (each) => readlink(`/proc/${each}/ns/net`).catch(() => undefined)))
  const devices = await readFile(`/proc/${pid}/net/dev`, 'utf8').catch(() => undefined)
  if (own === undefined || its === undefined || devices === undefined) return unseen(what, confinement.why)
  if (own === its) return { what, holds: false, why: `it shares our network: ${confinement.why ?? 'no namespace was made'}` }
  const names = [...devices.matchAll(/^\s*([^\s:|]+):/gm)].map(([, name]) => name!)
  const addresses = await readFile(`/proc/${pid}/net/if_inet6`, 'utf8').catch(() => '')
  const holds = names.every((name) => name === 'lo') && addresses.trim() === ''
  const why = holds ? 'a network namespace of its own, in it a loopback that is down' : `a namespace with ${names.join(', ')}`
  return { what, holds, why }
}

async function seeFiles({ pid, forbidden, confinement }: SeenServer): Promise<IsolationFact> {
  const what = 'key, configuration and repository out of reach'
  const [own, its] = await Promise.all(['self', pid].map(async (each) => readlink(`/proc/${each}/ns/mnt`).catch(() => undefined)))
  if (own === undefined || its === undefined) return unseen(what, confinement.why)
  if (own === its) return { what, holds: false, why: `no files of its own: ${confinement.why ?? 'no namespace was made'}` }
  const seen: string[] = []
  for (const path of ['/etc/passwd', ...forbidden]) {
    const code = await stat(`/proc/${pid}/root${path}`).then(
      () => undefined,
      (error: unknown) => systemErrorCode(error),
    )
    if (code !== 'ENOENT' && code !== 'ENOTDIR') seen.push(path)
  }
  if (seen.length > 0) return { what, holds: false, why: `within its reach: ${seen.map((path) => `"${path}"`).join(', ')}` }
  return {
    what,
    holds: true,
    why: "files of its own: the system's programs, PostgreSQL's, and the scratch; nothing else is there",
  }
}

async function seeUser({ pid, owner, account }: SeenServer): Promise<IsolationFact> {
  const what = 'a user of its own'
  const uid = Number((await statusOf(pid)).Uid?.split(/\s+/)[1])
  if (Number.isNaN(uid)) return unseen(what)
  if (process.getuid?.() !== 0) return { what, holds: false, why: 'we are no root: it runs as the user that drills' }
  if (uid !== account.uid || uid === owner.uid) return { what, holds: false, why: 'it runs as the owner of the files' }
  return { what, holds: true, why: `the number ${uid}, which no account has, and which owns nothing but the scratch` }
}

async function seeRights({ pid }: SeenServer): Promise<IsolationFact> {
  const what = 'no core dumps, no new rights, nothing logged of statements'
  const [status, limits] = await Promise.all([statusOf(pid), readFile(`/proc/${pid}/limits`, 'utf8').catch(() => undefined)])
  if (limits === undefined || status.CapBnd === undefined) return unseen(what)
  const core = /^Max core file size\s+(\S+)\s+(\S+)/m.exec(limits)
  const problems = [
    ...(core?.[1] === '0' && core[2] === '0' ? [] : ['core dumps are not off']),
    ...(status.NoNewPrivs === '1' ? [] : ['programs may give it rights']),
    ...(/^0+$/.test(status.CapEff ?? '') ? [] : ['it has capabilities']),
  ]
  const why = 'no core file, no_new_privs, no capability; statement logging is off'
  return { what, holds: problems.length === 0, why: problems.length === 0 ? why : problems.join('; ') }
}

async function statusOf(pid: number): Promise<Record<string, string>> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Object.fromEntries(
    text.split('\n').map((line) => {
      const at = line.indexOf(':')
      return [line.slice(0, at), line.slice(at + 1).trim()]
    }),
  )
}

function unseen(what: string, why: string | null = null): IsolationFact {
  return { what, holds: null, why: `the system does not tell${why === null ? '' : `: ${why}`}` }
}
