import { resolve } from 'node:path'
import { z } from 'zod'
import type { Severity } from '../catalog/schema.ts'
import { parseSecretReference, secretReferenceSchema, type SecretReference } from '../config/secret-reference.ts'
import { Failure } from '../errors.ts'

// Ways to tell people, as the configuration has them.

const LOOPBACK_HOST = /^(localhost|127(\.\d{1,3}){3}|::1)$/
const nameSchema = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'a name of lower-case letters, digits, ".", "_" and "-"')
const addressSchema = z.email('an address, "name@host"').max(254)

const severitySchema = z.enum(['alarm', 'warning', 'info'])
const common = {
  severities: z
    .array(severitySchema)
    .min(1)
    .default(['alarm', 'warning', 'info'])
    .describe('what this channel is told about; by default all'),
  digest: z.boolean().default(false).describe('whether it gets the daily digest'),
  withoutStore: z.boolean().default(true).describe('whether alarms go to it directly while the store is away'),
  ca: z.string().min(1).optional().describe('a file of certificates (PEM) that are trusted instead of the public ones'),
}
const allowPrivate = z
  .boolean()
  .default(false)
  .describe('whether its address may be on the inner network; "http://" to this host is allowed then as well')

const smtpSchema = z
  .strictObject({
    host: z.string().regex(/^[A-Za-z0-9.:_-]{1,253}$/, 'a host name or an address'),
    port: z.int().min(1).max(65_535).default(587),
    user: z.string().min(1).max(320).optional(),
    password: secretReferenceSchema.optional(),
    tls: z
      .enum(['required', 'implicit', 'none'])
      .default('required')
      .describe('STARTTLS, TLS from the first byte (port 465), or none, for a server on this host alone'),
  })
  .refine(({ user, password }) => (user === undefined) === (password === undefined), {
    message: '"user" and "password" together, or neither',
  })
  .refine(({ tls, host }) => tls !== 'none' || LOOPBACK_HOST.test(host), {
    path: ['tls'],
    message: '"required" or "implicit": "none" is for a server on this host alone',
  })

const webhookUrlSchema = z.string().refine(isPlainUrl, '"https://host/path", without user and password')

export const channelSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('email'),
    to: z.array(addressSchema).min(1).max(50),
    from: addressSchema,
    smtp: smtpSchema,
    ...common,
  }),
  z
    .strictObject({
      kind: z.literal('webhook'),
      url: webhookUrlSchema,
      secret: secretReferenceSchema.describe('signs each message; the receiver has the same'),
      ...common,
      allowPrivate,
    })
    .refine(({ url, allowPrivate: inner }) => isSafeUrl(url, inner), { path: ['url'], message: '"https://host/path"' }),
  z.strictObject({
    kind: z.literal('slack'),
    url: secretReferenceSchema.describe('the address of an incoming webhook; it is a secret'),
    ...common,
    allowPrivate,
  }),
])
export const channelsSchema = z.record(nameSchema, channelSchema)

/** When the daily digest goes out, on the channels that ask for it. */
export const digestSchema = z.strictObject({
  at: z
    .string()
    .regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'a time of day, "07:00"')
    .default('07:00'),
  timeZone: z.string().refine(isTimeZone, 'a time zone, "Africa/Lagos"').default('UTC'),
})

type Settings = z.infer<typeof channelSchema>
type EmailSettings = Extract<Settings, { kind: 'email' }>
type SmtpSettings = EmailSettings['smtp']
type Named<Kind extends Settings['kind']> = Extract<Settings, { kind: Kind }> & { readonly name: string }

export interface Smtp extends Omit<SmtpSettings, 'password'> {
  readonly password?: SecretReference | undefined
}
export type EmailChannel = Omit<Named<'email'>, 'smtp'> & { readonly smtp: Smtp }
export type WebhookChannel = Omit<Named<'webhook'>, 'secret'> & { readonly secret: SecretReference }
export type SlackChannel = Omit<Named<'slack'>, 'url'> & { readonly url: SecretReference }
/** A way to tell people: named, its paths absolute, its secrets still references, which are read at each use. */
export type Channel = EmailChannel | WebhookChannel | SlackChannel

/** The channels of a configuration file in `directory`. */
export function resolveChannels(settings: z.infer<typeof channelsSchema>, directory: string): Channel[] {
  return Object.entries(settings).map(([name, channel]) => resolveChannel(name, channel, directory))
}

function resolveChannel(name: string, channel: Settings, directory: string): Channel {
  const ca = channel.ca === undefined ? {} : { ca: resolve(directory, channel.ca) }
  switch (channel.kind) {
    case 'email': {
      const { password, ...smtp } = channel.smtp
      const read = password === undefined ? {} : { password: reference(password, directory) }
      return { ...channel, ...ca, name, smtp: { ...smtp, ...read } }
    }
    case 'webhook':
      return { ...channel, ...ca, name, secret: reference(channel.secret, directory) }
    case 'slack':
      return { ...channel, ...ca, name, url: reference(channel.url, directory) }
    default:
      return channel satisfies never
  }
}

function reference(text: string, directory: string): SecretReference {
  const parsed = parseSecretReference(text, directory)
  if (parsed !== undefined) return parsed
  throw new Failure('CONFIG_INVALID', 'a channel has something else in place of a reference to a secret (it is not shown)', {
    hint: 'write "file:/path" or "env:NAME"',
  })
}

/** Whether a channel is told about any of these. */
export function concerns(channel: Pick<Channel, 'severities'>, severities: readonly Severity[]): boolean {
  return channel.severities.some((each) => severities.includes(each))
}

function isPlainUrl(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url !== undefined && /^https?:$/.test(url.protocol) && url.username === '' && url.password === ''
}

function isSafeUrl(text: string, inner: boolean): boolean {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url?.protocol === 'https:' || (inner && LOOPBACK_HOST.test(url?.hostname.replace(/^\[(.*)\]$/, '$1') ?? ''))
}

function isTimeZone(text: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: text }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}
