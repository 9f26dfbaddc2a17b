import { resolve } from 'node:path'
import { formatSecretReference, parseSecretReference } from '../config/secret-reference.ts'
import type { SettingsDocument } from './settings.ts'

/** What is relative in it is relative to this directory, and is not any more. */
export function absoluteSettings(data: SettingsDocument, directory: string): SettingsDocument {
  const { tls, identityProvider, deadMan, auditSyslog } = data
  const reference = (text: string) => absoluteReference(text, directory)
  const withCa = <Part extends { readonly ca?: string | undefined }>(part: Part): Part =>
    part.ca === undefined ? part : { ...part, ca: resolve(directory, part.ca) }
  const channels = Object.entries(data.channels).map(
    ([name, channel]) => [name, withCa(absoluteChannel(channel, directory))] as const,
  )
  return {
    ...data,
    ...(tls === undefined ? {} : { tls: { certificate: reference(tls.certificate), key: reference(tls.key) } }),
    state: resolve(directory, data.state),
    restoreRoots: data.restoreRoots.map((root) => resolve(directory, root)),
    ...(identityProvider === undefined
      ? {}
      : { identityProvider: { ...identityProvider, clientSecret: reference(identityProvider.clientSecret) } }),
    channels: Object.fromEntries(channels),
    ...(deadMan === undefined ? {} : { deadMan: withCa({ ...deadMan, url: reference(deadMan.url) }) }),
    ...(auditSyslog === undefined ? {} : { auditSyslog: withCa(auditSyslog) }),
  }
}

function absoluteChannel(channel: SettingsDocument['channels'][string], directory: string) {
  switch (channel.kind) {
    case 'email': {
      const { smtp } = channel
      const { password } = smtp
      return password === undefined
        ? channel
        : { ...channel, smtp: { ...smtp, password: absoluteReference(password, directory) } }
    }
    case 'webhook':
      return { ...channel, secret: absoluteReference(channel.secret, directory) }
    case 'slack':
      return { ...channel, url: absoluteReference(channel.url, directory) }
    default:
      return channel satisfies never
  }
}

/** What is no reference stays as it is. */
function absoluteReference(text: string, directory: string): string {
  const reference = parseSecretReference(text, directory)
  return reference === undefined ? text : formatSecretReference(reference)
}
