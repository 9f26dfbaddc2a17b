import { open, rm } from 'node:fs/promises'
import { z } from 'zod'
import { tokenAskedSchema, tokenMadeSchema, tokensSchema } from '../api/auth-schemas.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { waitsText } from './approval-text.ts'
import { ControlPlaneClient } from './control-plane-client.ts'
import { formatGrants, parseGrants } from './grants-text.ts'
import { formatTable, formatTime } from './output.ts'
import { plainText } from './plain-text.ts'
import { Prompter } from './prompter.ts'
import { optionalText, type Answer, type Context, type Given, type Verb } from './verb.ts'

const HEAD = ['ID', 'NAME', 'GRANTS', 'MADE', 'UNTIL', 'LAST USED', 'STATE'] as const
const DAY_MS = 24 * 3_600_000
const DAYS_MAX = 400
const DAYS = 90

const answerSchema = z.union([tokenMadeSchema, tokenAskedSchema])
type Made = z.infer<typeof answerSchema>
type TokenView = z.infer<typeof tokensSchema>['items'][number]

/** One's own API tokens, for programs. */
export const run: Verb = async (context, given) => {
  const [what, name] = given.args
  const client = await ControlPlaneClient.ofPerson(given, context.signal)
  switch (what) {
    case 'make':
      return await make(client, { context, given, name })
    case 'list':
      return await list(client, context.clock.now())
    case 'revoke':
      return await revoke(client, name)
    default:
      throw new Failure('ARGUMENTS_INVALID', `"${what}" is nothing that can be done with tokens`, {
        hint: 'make, list or revoke',
      })
  }
}

async function make(
  client: ControlPlaneClient,
  { context, given, name }: { readonly context: Context; readonly given: Given; readonly name: string | undefined },
): Promise<Answer> {
  if (name === undefined) throw new Failure('ARGUMENTS_INVALID', 'a token has a name', { hint: 'resus token make NAME' })
  const path = optionalText(given, 'to')
  const grants = parseGrants(given)
  const expiresAt = new Date(context.clock.now() + daysOf(given) * DAY_MS).toISOString()
  const body = { name, grants, expiresAt }
  if (path === undefined) {
    const made = await askFor(client, body, context.signal)
    return { json: documentOf(made), text: `${made.token}\nshown this once; ${describeMade(made)}` }
  }
  const made = await makeInto(path, async () => askFor(client, body, context.signal))
  const { token: _, ...document } = documentOf(made)
  return { json: { file: path, ...document }, text: `the token is in ${path}; ${describeMade(made)}` }
}

/** A token outlives the session: it takes a second factor, shown now. */
async function askFor(client: ControlPlaneClient, body: object, signal: AbortSignal): Promise<Made> {
  using prompter = new Prompter(signal)
  return await prompter.withCode('to make it, a new code of the authenticator (six digits)', async (code) =>
    client.ask('POST /auth/tokens', answerSchema, { ...body, shown: { kind: 'totp', code } }),
  )
}

/** First the file, so that no token is made that nobody has; nothing that is there is overwritten. */
async function makeInto(path: string, ask: () => Promise<Made>): Promise<Made> {
  await using file = await open(path, 'wx', 0o600).catch((cause: unknown) => {
    throw new Failure('ARGUMENTS_INVALID', `cannot make "${path}": ${systemErrorCode(cause) ?? 'unknown'}`, {
      hint: '--to names a file that is not there yet, in a directory of this account',
      cause,
    })
  })
  try {
    const made = await ask()
    await file.writeFile(`${made.token}\n`)
    await file.sync()
    return made
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
}

/** One that does more than read is worth nothing before another person has approved it. */
function describeMade(made: Made): string {
  return 'view' in made ? `it is ${describe(made.view)}` : waitsText(made.approval)
}

function documentOf(made: Made): Record<string, unknown> {
  return 'view' in made ? { token: made.token, ...made.view, approval: null } : made
}

function describe({ name, grants, expiresAt }: TokenView): string {
  return `"${plainText(name)}" (${formatGrants(grants)}), good until ${formatTime(expiresAt)}`
}

async function list(client: ControlPlaneClient, nowMs: number): Promise<Answer> {
  const { items } = await client.ask('GET /auth/tokens', tokensSchema)
  const rows = items.map(({ id, name, grants, madeAt, expiresAt, lastUsedAt, revokedAt }) => [
    id,
    plainText(name),
    formatGrants(grants),
    formatTime(madeAt),
    formatTime(expiresAt),
    lastUsedAt === null ? '-' : formatTime(lastUsedAt),
    revokedAt !== null ? 'revoked' : Date.parse(expiresAt) <= nowMs ? 'over' : 'good',
  ])
  return { json: items, text: rows.length === 0 ? 'you have no tokens' : formatTable(HEAD, rows) }
}

async function revoke(client: ControlPlaneClient, id: string | undefined): Promise<Answer> {
  if (id === undefined || !/^[0-9a-f-]{36}$/.test(id)) {
    throw new Failure('ARGUMENTS_INVALID', 'revoke which token?', { hint: '"resus token list" has their ids' })
  }
  await client.ask(`DELETE /auth/tokens/${id}`, z.undefined())
  return { json: { id, revoked: true }, text: `${id} is revoked` }
}

function daysOf(given: Given): number {
  const text = optionalText(given, 'days') ?? String(DAYS)
  const days = /^[1-9]\d{0,2}$/.test(text) ? Number(text) : Number.NaN
  if (days <= DAYS_MAX) return days
  throw new Failure('ARGUMENTS_INVALID', `--days is "${text}", wanted 1 to ${DAYS_MAX}`, { hint: `without it, ${DAYS}` })
}
