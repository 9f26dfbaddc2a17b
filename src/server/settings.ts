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
import { Failure } from '../errors.ts'
import { absoluteSettings } from './settings-paths.ts'

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

/** What server.yaml says, with its defaults, as it says it. */
export type SettingsDocument = z.output<typeof settingsSchema>

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
  /** What all this was made of: paths absolute, secrets as references; the same wherever it is read. */
  readonly document: SettingsDocument
}

/** The server's settings. A file that was not named may be missing. Throws CONFIG_INVALID, CONFIG_UNREADABLE. */
export async function loadSettings(path: string, options: { readonly named: boolean }): Promise<ServerSettings> {
  const file = resolve(path)
  const schema = z.toJSONSchema(settingsSchema, { io: 'input' })
  const data =
    options.named || existsSync(file) ? (await readDocument(file, settingsSchema, schema)).data : settingsSchema.parse({})
  return settingsOf(absoluteSettings(data, dirname(file)), file)
}

/** What was kept of the settings of a server. Throws CONFIG_INVALID for what is none. */
export function parseSettings(kept: unknown): SettingsDocument {
  // What a later version has said is not known here.
  const found = z.object(settingsSchema.shape).safeParse(kept)
  if (found.success) return found.data
  throw new Failure('CONFIG_INVALID', 'the settings of the server that were kept are none')
}

/** What a document with absolute paths means. Throws CONFIG_INVALID; `file` is for its message. */
export function settingsOf(document: SettingsDocument, file: string): ServerSettings {
  const directory = dirname(file)
  const { listen, tls, identityProvider, auditSyslog } = document
  const [, host = '', port = ''] = LISTEN.exec(listen) ?? []
  const name = host.replace(/^\[|\]$/g, '')
  if (isPlainBeyondLoopback(document) && document.plainHttp === undefined) {
    throw invalid([`${file}: listen: found "${listen}" without tls: plain HTTP is for loopback alone`])
  }
  return {
    listen: { host: name, port: Number(port) },
    tls: tls === undefined ? undefined : { certificate: fileOf(tls.certificate, file), key: fileOf(tls.key, file) },
    state: document.state,
    node: nodeOf(document),
    restoreRoots: document.restoreRoots,
    url: document.url,
    identityProvider: identityProvider === undefined ? undefined : resolveIdentityProvider(identityProvider, directory),
    channels: resolveChannels(document.channels, directory),
    digest: document.digest,
    deadMan: document.deadMan,
    auditSyslog: auditSyslog === undefined ? undefined : { ...auditSyslog, ca: auditSyslog.ca },
    directory,
    document,
  }
}

/** Whether others on the network read what people and programs send. */
export function isPlainBeyondLoopback({ listen, tls }: Pick<SettingsDocument, 'listen' | 'tls'>): boolean {
  const host = LISTEN.exec(listen)?.[1] ?? ''
  return tls === undefined && !LOOPBACK.test(host.replace(/^\[|\]$/g, ''))
}

function nodeOf({ node }: SettingsDocument): string {
  const host = hostname().replaceAll(/[^A-Za-z0-9._-]/g, '-')
  return node ?? host.slice(0, 63)
}

function fileOf(text: string, file: string): string {
  const reference = parseSecretReference(text, dirname(file))
  if (reference?.kind === 'file') return reference.path
  throw invalid([`${file}: tls: found a value (not shown), wanted "file:/path" of a PEM file`])
}
