import { readFile } from 'node:fs/promises'
import type { z } from 'zod'
import { factorMadeSchema, logOnSchema, meSchema, totpBegunSchema } from '../api/auth-schemas.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { ControlPlaneClient, urlOf } from './control-plane-client.ts'
import { formatGrants } from './grants-text.ts'
import { formatTime } from './output.ts'
import { Prompter } from './prompter.ts'
import { optionalText, type Context, type Given, type Verb } from './verb.ts'

const DEFAULT_LINK_FILE = '/var/lib/resus/server/first-administrator'
const LINK = /^(https?:\/\/\S{1,1000})\/first-administrator#([\w-]{43})$/
const LABEL = 'authenticator'

type Begun = z.infer<typeof logOnSchema>

interface Asking {
  readonly context: Context
  readonly given: Given
  readonly prompter: Prompter
}

/** Logs a person on, for the commands that follow; whoever has no second factor yet makes one. */
export const run: Verb = async (context, given) => {
  if (given.options.first === true && given.options.invitation === true) {
    throw new Failure('ARGUMENTS_INVALID', 'one of --first and --invitation', { hint: 'leave the other out' })
  }
  using prompter = new Prompter(context.signal)
  const asking = { context, given, prompter }
  const { client, begun } = await begin(asking)
  if (begun.kind === 'second-factor') await showSecondFactor(client, begun, prompter)
  else if (begun.isFactorNeeded) await enrol(client, prompter)
  const { name, grants, session } = await client.ask('GET /auth/me', meSchema)
  const endsAt = session?.endsAt ?? null
  const until = endsAt === null ? '' : `, until ${formatTime(endsAt)} at the latest; 15 minutes without a command end it`
  return {
    json: { name, grants, url: client.url, endsAt },
    text: `"${name}" (${formatGrants(grants)}) is logged on at ${client.url}${until}`,
  }
}

async function begin(asking: Asking): Promise<{ readonly client: ControlPlaneClient; readonly begun: Begun }> {
  const { options } = asking.given
  if (options.first === true) return await beginFirst(asking)
  const client = ControlPlaneClient.logOn(urlOf(asking.given), asking.context.signal)
  return { client, begun: await (options.invitation === true ? byInvitation : byPassword)(client, asking) }
}

async function byPassword(client: ControlPlaneClient, { given, prompter }: Asking): Promise<Begun> {
  const name = optionalText(given, 'name') ?? (await prompter.ask('name'))
  const password = await prompter.askSecret('password')
  return await client.ask('POST /auth/log-on', logOnSchema, { name, password: password.reveal().toString() })
}

async function byInvitation(client: ControlPlaneClient, { prompter }: Asking): Promise<Begun> {
  const code = (await prompter.askSecret('the code of the invitation')).reveal().toString().trim()
  const password = await prompter.askNewPassword()
  return await client.ask('POST /auth/invitation', logOnSchema, { code, password: password.reveal().toString() })
}

async function beginFirst({ context, given, prompter }: Asking) {
  const { url, code } = await readLink(optionalText(given, 'linkFile') ?? DEFAULT_LINK_FILE)
  const client = ControlPlaneClient.logOn(urlOf(given, url), context.signal)
  prompter.show(`you become the first administrator at ${client.url}`)
  const name = optionalText(given, 'name') ?? (await prompter.ask('a name to log on with'))
  const displayName = await prompter.ask('your name, as others know you')
  const password = await prompter.askNewPassword()
  const body = { code, name, displayName, password: password.reveal().toString() }
  return { client, begun: await client.ask('POST /first-administrator', logOnSchema, body) }
}

async function showSecondFactor(
  client: ControlPlaneClient,
  { ticket, factors }: Extract<Begun, { kind: 'second-factor' }>,
  prompter: Prompter,
): Promise<void> {
  if (!factors.includes('totp')) {
    throw new Failure('FACTOR_NEEDED', 'this account has passkeys alone, which a command line cannot show', {
      hint: 'log on with a browser; TOTP can be made there beside them',
    })
  }
  await prompter.withCode('code of the authenticator (six digits)', async (code) =>
    client.ask('POST /auth/second-factor', logOnSchema, { ticket, factor: { kind: 'totp', code } }),
  )
}

/** The first second factor: until there is one nothing else can be done. */
async function enrol(client: ControlPlaneClient, prompter: Prompter): Promise<void> {
  const { ticket, secret, uri } = await client.ask('POST /auth/factors/totp', totpBegunSchema, { label: LABEL })
  prompter.show(`\na second factor is needed. Into an authenticator (any application for TOTP), by hand or as a QR code of the address:
  secret   ${secret}
  address  ${uri}
It is shown this once, and whoever sees it has the factor.\n`)
  await prompter.withCode('the code that it shows now', async (code) =>
    client.ask('POST /auth/factors/totp/finish', factorMadeSchema, { ticket, code }),
  )
}

async function readLink(path: string): Promise<{ readonly url: string; readonly code: string }> {
  const hint = `"resus serve" makes it while nobody is known and each repository can be asked, anew every 15 minutes; only its account and root read it`
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (code === undefined) throw cause
    throw new Failure('SECRET_UNREADABLE', `the link for the first administrator cannot be read from "${path}": ${code}`, {
      hint,
      cause,
    })
  }
  const [, url, code] = LINK.exec(text.trim()) ?? []
  if (url !== undefined && code !== undefined) return { url, code }
  throw new Failure('SECRET_UNREADABLE', `"${path}" has no link for the first administrator`, { hint })
}
