import { existsSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import {
  identityProviderSchema,
  resolveIdentityProvider,
  type IdentityProviderSettings,
} from '../authority/identity-provider-settings.ts'
import { invalid, readDocument } from '../config/document.ts'
import { channelsSchema, digestSchema, resolveChannels, type Channel } from '../incident/channel.ts'
import { deadManSchema } from '../incident/dead-man.ts'
import { parseSecretReference, secretReferenceSchema } from '../config/secret-reference.ts'

// server.yaml: what belongs to the server and to no system.

export const DEFAULT_PORT = 7400
const DEFAULT_STATE = '/var/lib/resus/server'
const LISTEN = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/
const SITE = /^(https:\/\/[a-z0-9.-]{1,253}|http:\/\/localhost)(:\d{1,5})?$/
const LOOPBACK = /^(127\.\d+\.\d+\.\d+|localhost|::1)$/

const settingsSchema = z.strictObject({
  listen: z.string().regex(LISTEN, 'host:port').default(`127.0.0.1:${DEFAULT_PORT}`).describe('where the API answers'),
  tls: z
    .strictObject({ certificate: secretReferenceSchema, key: secretReferenceSchema })
    .optional()
    .describe('PEM files; a change of them is taken without a restart'),
  plainHttp: z
    .literal('anywhere')
    .optional()
    .describe('plain HTTP on an address that is not loopback: behind a proxy that has TLS'),
  state: z.string().min(1).default(DEFAULT_STATE).describe('the directory of the store and of the administrator token'),
  node: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/)
    .optional()
    .describe('the name of this node; by default that of the host'),
  restoreRoots: z.array(z.string().min(1)).default([]).describe('directories below which the API may restore'),
  url: z
    .string()
    .regex(SITE, '"https://name" or "https://name:port"; http for localhost alone')
    .optional()
    .describe('where browsers reach Resus: passkeys are bound to its name, and cookies go there by https alone'),
  identityProvider: identityProviderSchema.optional(),
  channels: channelsSchema.prefault({}).describe('ways to tell people'),
  digest: digestSchema.prefault({}).describe('when the daily digest goes out'),
  deadMan: deadManSchema.optional(),
  auditSyslog: z
    .strictObject({
      host: z.string().regex(/^[A-Za-z0-9.:_-]{1,253}$/, 'a host name or an address'),
      port: z.int().min(1).max(65_535).default(6514),
      ca: z.string().min(1).optional().describe('a file of certificates (PEM) that are trusted instead of the public ones'),
    })
    .optional()
    .describe('where each entry of the audit trail goes on to: RFC 5424 over TLS'),
})

/** server.yaml with its defaults: paths absolute. */
export interface ServerSettings {
  readonly listen: { readonly host: string; readonly port: number }
  readonly tls: { readonly certificate: string; readonly key: string } | undefined
  readonly state: string
  readonly node: string
  readonly restoreRoots: readonly string[]
  /** Where browsers reach us. */
  readonly url: string | undefined
  readonly identityProvider: IdentityProviderSettings | undefined
  readonly channels: readonly Channel[]
  readonly digest: z.infer<typeof digestSchema>
  readonly deadMan: z.infer<typeof deadManSchema> | undefined
  readonly auditSyslog: { readonly host: string; readonly port: number; readonly ca: string | undefined } | undefined
  /** Of the file: what is relative is relative to it. */
  readonly directory: string
}

/** The server's settings. A file that was not named may be missing. Throws CONFIG_INVALID, CONFIG_UNREADABLE. */
export async function loadSettings(path: string, options: { readonly named: boolean }): Promise<ServerSettings> {
  const file = resolve(path)
  const schema = z.toJSONSchema(settingsSchema, { io: 'input' })
  const data =
    options.named || existsSync(file) ? (await readDocument(file, settingsSchema, schema)).data : settingsSchema.parse({})
  const directory = dirname(file)
  const [, host = '', port = ''] = LISTEN.exec(data.listen) ?? []
  const name = host.replace(/^\[|\]$/g, '')
  if (data.tls === undefined && data.plainHttp === undefined && !LOOPBACK.test(name)) {
    throw invalid([`${file}: listen: found "${data.listen}" without tls: plain HTTP is for loopback alone`])
  }
  return {
    listen: { host: name, port: Number(port) },
    tls:
      data.tls === undefined ? undefined : { certificate: fileOf(data.tls.certificate, file), key: fileOf(data.tls.key, file) },
    state: resolve(directory, data.state),
    node:
      data.node ??
      hostname()
        .replaceAll(/[^A-Za-z0-9._-]/g, '-')
        .slice(0, 63),
    restoreRoots: data.restoreRoots.map((root) => resolve(directory, root)),
    url: data.url,
    identityProvider: data.identityProvider === undefined ? undefined : resolveIdentityProvider(data.identityProvider, directory),
    channels: resolveChannels(data.channels, directory),
    digest: data.digest,
    deadMan: data.deadMan,
    auditSyslog:
      data.auditSyslog === undefined
        ? undefined
        : { ...data.auditSyslog, ca: data.auditSyslog.ca === undefined ? undefined : resolve(directory, data.auditSyslog.ca) },
    directory,
  }
}

function fileOf(text: string, file: string): string {
  const reference = parseSecretReference(text, dirname(file))
  if (reference?.kind === 'file') return reference.path
  throw invalid([`${file}: tls: found a value (not shown), wanted "file:/path" of a PEM file`])
}
