import { createPublicKey } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { entriesOf, readCopy } from '../authority/audit-copy.ts'
import { headsIn, publicKeyOf, readKey, type AuditHead } from '../authority/audit-head.ts'
import { verifyTrail, type AuditReport } from '../authority/audit-verify.ts'
import { embeddedConnection } from '../catalog/embedded-store.ts'
import { readStore } from '../catalog/store-reader.ts'
import { isStoreAway } from '../catalog/store.ts'
import { openConfigured } from '../config/open.ts'
import { loadSystems } from '../config/systems.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import type { Repository } from '../repository/repository.ts'
import { acknowledgedSchema } from '../api/audit-schemas.ts'
import { ControlPlaneClient } from './control-plane-client.ts'
import { formatFields } from './output.ts'
import { plainText } from './plain-text.ts'
import { optionalText, type Answer, type Context, type Given, type Verb } from './verb.ts'

const DEFAULT_STATE = '/var/lib/resus/server'
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)$/

/** The trail, from the repositories; for `verify` from the store as well, where that is there. */
export const run: Verb = async (context, given) => {
  const [what] = given.args
  switch (what) {
    case 'verify':
      return await verify(context, given)
    case 'export':
      return await exportTrail(context, given)
    case 'key':
      return await showKeys(context)
    case 'acknowledge':
      return await acknowledge(context, given)
    default:
      throw new Failure('ARGUMENTS_INVALID', `"${what}" is nothing that can be done with the audit trail`, {
        hint: 'verify, export, key or acknowledge',
      })
  }
}

async function verify(context: Context, given: Given): Promise<Answer> {
  const headFile = optionalText(given, 'head')
  const keyFile = optionalText(given, 'key')
  const heads = headFile === undefined ? [] : await readHeads(headFile)
  const publicKey = keyFile === undefined ? undefined : await readPublicKey(keyFile)
  const repositories = await openAll(context)
  const asked = { repositories, heads, publicKey, nowMs: context.clock.now(), signal: context.signal }
  const connectionString = await storeConnection(given)
  const { report, storeAway } = await withStore(connectionString, async (store) => verifyTrail({ ...asked, store }))
  return {
    json: { whole: report.problems.length === 0, storeAway, ...report },
    text: describe(report, { storeAway, headsGiven: heads.length }),
    exitStatus: report.problems.length === 0 ? 0 : 1,
  }
}

/** Without the store, where that is away: then the repositories are all there is. */
async function withStore(
  connectionString: string | undefined,
  work: (store: ReturnType<typeof readStore> | undefined) => Promise<AuditReport>,
): Promise<{ report: AuditReport; storeAway: string | null }> {
  const none = 'none was found: name its state directory with --state, or RESUS_DATABASE_URL'
  if (connectionString === undefined) return { report: await work(undefined), storeAway: none }
  const store = readStore(connectionString)
  try {
    return { report: await work(store), storeAway: null }
  } catch (error) {
    if (!isStoreAway(error)) throw error
    const storeAway = error instanceof Error ? error.message : String(error)
    return { report: await work(undefined), storeAway }
  } finally {
    await store.destroy()
  }
}

async function storeConnection(given: Given): Promise<string | undefined> {
  const state = optionalText(given, 'state')
  const url = process.env.RESUS_DATABASE_URL
  if (state === undefined && url !== undefined && url !== '') return url
  return await embeddedConnection(state ?? DEFAULT_STATE)
}

function describe(report: AuditReport, { storeAway, headsGiven }: { storeAway: string | null; headsGiven: number }): string {
  const copies = report.copies.map(
    ({ where, first, last }) => [where, last === null ? 'nothing' : `entries ${first} to ${last}`] as const,
  )
  const protections = {
    role: 'Resus has no right to change entries',
    triggers: 'triggers alone keep Resus from changing entries: it owns the table, or could',
  }
  const fields = [
    ...copies,
    ...(storeAway === null ? [] : [['the store', `not read: ${storeAway}`] as const]),
    ...(report.protection === null ? [] : [['in the store', protections[report.protection]] as const]),
    [
      'heads',
      headsGiven === 0 ? 'none was given: what was cut in every copy is not seen' : `${report.heads} of ${headsGiven} are signed`,
    ],
  ] as const
  const problems = report.problems.map(({ kind, where, seq, to, text }) => {
    const entries = seq === null ? '' : to === null || to === seq ? ` entry ${seq}` : ` entries ${seq} to ${to}`
    return `${kind.toUpperCase()}:${entries} of ${where}: ${text}`
  })
  const verdict = problems.length === 0 ? 'the audit trail is whole' : `the audit trail is NOT whole: ${problems.length} problems`
  return [verdict, formatFields(fields), ...(problems.length === 0 ? [] : [problems.join('\n')])].join('\n\n')
}

/** One entry a line, oldest first, of one repository: each has all of them. */
async function exportTrail(context: Context, given: Given): Promise<Answer> {
  const [since, until] = [timeOf(given, 'since'), timeOf(given, 'until')]
  const isDocument = given.options.json === true
  const entries: unknown[] = []
  const [repository] = await openAll(context)
  if (repository === undefined) throw new Failure('CONFIG_INVALID', 'the configuration names no system')
  let last = 0
  for await (const object of readCopy(repository, 'forward', { signal: context.signal })) {
    if (object.problem !== null) context.warn(object.problem)
    for (const entry of entriesOf(object)) {
      if (entry.seq <= last) continue
      if (last > 0 && entry.seq !== last + 1) context.warn(`entries ${last + 1} to ${entry.seq - 1} are missing`)
      last = entry.seq
      const atMs = Date.parse(entry.at)
      if (atMs < since || atMs >= until) continue
      if (isDocument) entries.push(entry)
      else await writeLine(JSON.stringify(entry))
    }
  }
  return { json: entries, text: '' }
}

async function writeLine(line: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(`${line}\n`, (error) => (error === null || error === undefined ? resolve() : reject(error)))
  })
}

async function showKeys(context: Context): Promise<Answer> {
  const keys: { system: string; publicKey: string | null }[] = []
  for (const repository of await openAll(context)) {
    const key = await readKey(repository, { signal: context.signal })
    keys.push({ system: repository.system, publicKey: key === undefined ? null : publicKeyOf(key) })
  }
  const text = keys.map(({ system, publicKey }) => `${system}\n${publicKey?.trimEnd() ?? 'has none: "resus serve" makes it'}`)
  return { json: keys, text: text.join('\n\n') }
}

/** At a running control plane: what is said there closes the alarms. */
async function acknowledge(context: Context, given: Given): Promise<Answer> {
  const text = optionalText(given, 'text')
  if (text === undefined) {
    throw new Failure('ARGUMENTS_INVALID', '--text is missing', { hint: 'resus audit acknowledge --text "what you have found"' })
  }
  const client = await ControlPlaneClient.ofPerson(given, context.signal)
  const { closed } = await client.ask('POST /audit/acknowledge', acknowledgedSchema, { text })
  const lines = closed.map((each) => plainText(`${each.code} ${each.system}: ${each.text}`))
  return {
    json: closed,
    text: lines.length === 0 ? 'there was nothing to look at' : `it is on record; closed:\n${lines.join('\n')}`,
  }
}

async function openAll(context: Context): Promise<Repository[]> {
  const { systems } = await loadSystems(context.configPath)
  return await Promise.all(systems.map(async (system) => openConfigured(system, context.warn)))
}

async function readHeads(path: string): Promise<AuditHead[]> {
  const heads = headsIn(await readText(path))
  if (heads.length > 0) return heads
  throw new Failure('ARGUMENTS_INVALID', `"${path}" has no head of the audit trail`, {
    hint: 'it is in the daily digest, and in "audit-head.json" of the state directory: {"seq":…,"signature":…}',
  })
}

async function readPublicKey(path: string): Promise<string> {
  const text = await readText(path)
  try {
    if (createPublicKey(text).asymmetricKeyType === 'ed25519') return text
  } catch {
    // Said below.
  }
  throw new Failure('ARGUMENTS_INVALID', `"${path}" is no public key of Ed25519 in PEM`, { hint: '"resus audit key" shows it' })
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw new Failure('ARGUMENTS_INVALID', `cannot read "${path}": ${systemErrorCode(cause) ?? 'unknown'}`, {
      hint: 'is the name right, and may this user read it?',
      cause,
    })
  }
}

function timeOf(given: Given, name: 'since' | 'until'): number {
  const text = optionalText(given, name)
  if (text === undefined) return name === 'since' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
  if (TIME.test(text)) return Date.parse(text)
  throw new Failure('ARGUMENTS_INVALID', `--${name} is "${text}", wanted a time with its zone`, {
    hint: 'like 2026-11-21T03:00:00Z',
  })
}
