import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'
import { isIP } from 'node:net'

// Certificates for tests, made in a moment with nothing installed: X.509 (RFC 5280) with P-256 and SHA-256, in DER.

export interface Certificate {
  readonly key: string
  readonly cert: string
}

export interface Authority {
  /** What a client trusts. */
  readonly cert: string
  issue(names: readonly string[], options?: { expired?: boolean }): Certificate
}

const DAY_MS = 24 * 3_600_000
const ECDSA_SHA256 = sequence(oid([42, 134, 72, 206, 61, 4, 3, 2]))

export function testAuthority(name = 'Test authority'): Authority {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const isAuthority = extension([85, 29, 19], sequence(der(0x01, Buffer.from([0xff]))))
  const cert = certificate({ issuer: name, subject: name, publicKey, extensions: [isAuthority], by: privateKey })
  return {
    cert,
    issue: (names, { expired = false } = {}) => {
      const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const extensions = [extension([85, 29, 17], sequence(...names.map(alternativeName)))]
      const subject = names[0] ?? 'nobody'
      return {
        key: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
        cert: certificate({ issuer: name, subject, publicKey: pair.publicKey, extensions, by: privateKey, expired }),
      }
    },
  }
}

interface Content {
  readonly issuer: string
  readonly subject: string
  readonly publicKey: KeyObject
  readonly extensions: readonly Buffer[]
  readonly by: KeyObject
  readonly expired?: boolean
}

function certificate({ issuer, subject, publicKey, extensions, by, expired = false }: Content): string {
  const until = Date.now() + (expired ? -1 : 30) * DAY_MS
  const content = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ECDSA_SHA256,
    distinguishedName(issuer),
    sequence(utcTime(Date.now() - 2 * DAY_MS), utcTime(until)),
    distinguishedName(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions)),
  )
  const signature = der(0x03, Buffer.from([0]), sign('sha256', content, by))
  const base64 = sequence(content, ECDSA_SHA256, signature).toString('base64')
  return `-----BEGIN CERTIFICATE-----\n${base64.replace(/.{64}(?=.)/g, '$&\n')}\n-----END CERTIFICATE-----\n`
}

function distinguishedName(commonName: string): Buffer {
  return sequence(der(0x31, sequence(oid([85, 4, 3]), der(0x0c, Buffer.from(commonName)))))
}

function alternativeName(name: string): Buffer {
  if (isIP(name) === 4) return der(0x87, Buffer.from(name.split('.').map(Number)))
  return der(0x82, Buffer.from(name))
}

function extension(id: readonly number[], value: Buffer): Buffer {
  return sequence(oid(id), der(0x04, value))
}

function utcTime(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/\D/g, '').slice(2, 14)
  return der(0x17, Buffer.from(`${digits}Z`))
}

/** The bytes of an object identifier, as encoded. */
function oid(bytes: readonly number[]): Buffer {
  return der(0x06, Buffer.from(bytes))
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return der(0x30, ...parts)
}

function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  if (content.length < 128) return Buffer.concat([Buffer.from([tag, content.length]), content])
  const size = Buffer.from([content.length >> 8, content.length & 0xff])
  return Buffer.concat([Buffer.from([tag, 0x82]), size, content])
}
