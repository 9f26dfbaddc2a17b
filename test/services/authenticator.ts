import { createHash, generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'
import type { GivenAssertion, GivenRegistration } from '../../src/authority/given-factor.ts'

const USER_PRESENT = 0x01
const USER_VERIFIED = 0x04
const ATTESTED = 0x40

interface Circumstances {
  readonly origin?: string
  readonly isVerified?: boolean
}

/** A passkey in software: ES256, no attestation, a counter. */
export class Authenticator {
  readonly #id = randomBytes(16)
  readonly #privateKey: KeyObject
  readonly #publicKey: KeyObject
  readonly #rpId: string
  #counter = 0

  constructor(rpId: string) {
    this.#rpId = rpId
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    this.#privateKey = privateKey
    this.#publicKey = publicKey
  }

  /** As `navigator.credentials.create`. */
  register({ challenge }: { readonly challenge: string }, of: Circumstances = {}): GivenRegistration {
    const { x, y } = this.#publicKey.export({ format: 'jwk' })
    const key = encode(
      new Map<unknown, unknown>([
        [1, 2],
        [3, -7],
        [-1, 1],
        [-2, Buffer.from(x!, 'base64url')],
        [-3, Buffer.from(y!, 'base64url')],
      ]),
    )
    const length = Buffer.alloc(2)
    length.writeUInt16BE(this.#id.length)
    const authData = Buffer.concat([this.#data(ATTESTED, of), Buffer.alloc(16), length, this.#id, key])
    const attestation = new Map<unknown, unknown>([
      ['fmt', 'none'],
      ['attStmt', new Map()],
      ['authData', authData],
    ])
    const id = this.#id.toString('base64url')
    const response = {
      clientDataJSON: clientData('webauthn.create', challenge, of).toString('base64url'),
      attestationObject: encode(attestation).toString('base64url'),
      transports: ['internal'],
    }
    return { id, rawId: id, type: 'public-key', response, clientExtensionResults: {} }
  }

  /** As `navigator.credentials.get`. */
  assert({ challenge }: { readonly challenge: string }, of: Circumstances = {}): GivenAssertion {
    this.#counter += 1
    const authenticatorData = this.#data(0, of)
    const clientDataJSON = clientData('webauthn.get', challenge, of)
    const signed = Buffer.concat([authenticatorData, createHash('sha256').update(clientDataJSON).digest()])
    const id = this.#id.toString('base64url')
    const response = {
      clientDataJSON: clientDataJSON.toString('base64url'),
      authenticatorData: authenticatorData.toString('base64url'),
      signature: sign('sha256', signed, this.#privateKey).toString('base64url'),
    }
    return { id, rawId: id, type: 'public-key', response, clientExtensionResults: {} }
  }

  #data(flags: number, { isVerified = true }: Circumstances): Buffer {
    const counter = Buffer.alloc(4)
    counter.writeUInt32BE(this.#counter)
    const all = flags | USER_PRESENT | (isVerified ? USER_VERIFIED : 0)
    return Buffer.concat([createHash('sha256').update(this.#rpId).digest(), Buffer.from([all]), counter])
  }
}

function clientData(type: string, challenge: string, { origin = 'https://resus.test' }: Circumstances): Buffer {
  return Buffer.from(JSON.stringify({ type, challenge, origin, crossOrigin: false }))
}

/** As much of CBOR (RFC 8949) as this takes. */
function encode(value: unknown): Buffer {
  if (typeof value === 'number') return value >= 0 ? head(0, value) : head(1, -1 - value)
  if (typeof value === 'string') return Buffer.concat([head(3, Buffer.byteLength(value)), Buffer.from(value)])
  if (value instanceof Uint8Array) return Buffer.concat([head(2, value.length), value])
  const entries = [...(value as Map<unknown, unknown>)]
  return Buffer.concat([head(5, entries.length), ...entries.flatMap(([key, each]) => [encode(key), encode(each)])])
}

function head(major: number, length: number): Buffer {
  if (length < 24) return Buffer.from([(major << 5) | length])
  return length < 256 ? Buffer.from([(major << 5) | 24, length]) : Buffer.from([(major << 5) | 25, length >> 8, length & 0xff])
}
