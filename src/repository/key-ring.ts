import { createHmac, hkdfSync } from 'node:crypto'
import { Failure } from '../errors.ts'
import type { Secret } from '../secret.ts'

// The keys that a repository is worked with (docs/format.md, "Keys"). Worker threads load this file: it needs nothing but node:crypto.

const KEY_BYTES = 32

/** The secrets that a slot wraps. `key` names the data key in the header of every object sealed with it. */
export interface KeyMaterial {
  readonly key: string
  readonly identitySecret: Secret
  readonly dataKey: Secret
}

/** What an open repository computes with. Plain data, so that a worker thread can have it. */
export interface KeyRing {
  readonly repository: string
  /** The data key that seals new objects. */
  readonly sealingKey: string
  /** Object keys by the name of their data key. */
  readonly objectKeys: Readonly<Record<string, Uint8Array>>
  readonly blobKey: Uint8Array
  /** Of the fingerprints of pages. */
  readonly pageKey: Uint8Array
  readonly nameKey: Uint8Array
}

/** Derives all keys of a repository; the first of `materials` seals new objects. */
export function deriveKeyRing(repository: string, materials: readonly KeyMaterial[]): KeyRing {
  const [newest] = materials
  if (newest === undefined) throw new Failure('KEY_WRONG', 'no key of the repository could be opened')
  const identity = newest.identitySecret.reveal()
  const objectKeys = materials.map(({ key, dataKey }) => [key, expand(dataKey.reveal(), 'resus/1 object')] as const)
  return {
    repository,
    sealingKey: newest.key,
    objectKeys: Object.fromEntries(objectKeys),
    blobKey: expand(identity, 'resus/1 blob'),
    pageKey: expand(identity, 'resus/1 page'),
    nameKey: expand(identity, 'resus/1 name'),
  }
}

/** The keyed name of a component, incarnation or branch: 16 hex digits. */
export function keyedName(ring: KeyRing, ...parts: readonly string[]): string {
  return createHmac('sha256', ring.nameKey).update(parts.join('\0')).digest('hex').slice(0, 16)
}

/** A keyed digest of a text, for whoever may not know the text: 32 hex digits. Equal texts of one purpose have equal digests. */
export function keyedDigest(ring: KeyRing, purpose: string, text: string): string {
  return createHmac('sha256', ring.nameKey).update(`digest\0${purpose}\0${text}`).digest('hex').slice(0, 32)
}

/** 32 bytes that nobody makes of a text but who has the keys. */
export function keyedMac(ring: KeyRing, purpose: string, text: string): Buffer {
  return createHmac('sha256', ring.nameKey).update(`mac\0${purpose}\0${text}`).digest()
}

/** The key of one object: of this name, with this salt. Throws KEY_WRONG when the data key is not known. */
export function objectKey(ring: KeyRing, object: { name: string; key: string; salt: Uint8Array }): Buffer {
  const from = ring.objectKeys[object.key]
  if (from === undefined) {
    throw new Failure(
      'KEY_WRONG',
      `cannot open "${object.name}": it is sealed with the data key ${object.key}, which no slot gave`,
      {
        hint: 'was the object put by another repository, or a key slot removed?',
      },
    )
  }
  return Buffer.from(hkdfSync('sha256', from, object.salt, `${ring.repository}\n${object.name}`, KEY_BYTES))
}

function expand(secret: Uint8Array, info: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, '', info, KEY_BYTES))
}
