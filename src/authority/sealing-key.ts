import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import type { Secret } from '../secret.ts'

const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
const MAC_BYTES = 16

interface Keys {
  readonly key: Buffer
  readonly macKey: Buffer
  readonly rowKey: Buffer
}

/**
 * What keeps secrets of people in the store unreadable to who has the store alone. All nodes of an installation have the same one. Sealed: nonce (12 bytes), tag (16), ciphertext,
 * AES-256-GCM, bound to a context.
 */
export class SealingKey {
  readonly #find: () => Secret
  #keys: Keys | undefined

  /** `find` may throw while nobody knows it yet: then whatever needs it does. */
  constructor(find: () => Secret) {
    this.#find = find
  }

  #there(): Keys {
    if (this.#keys !== undefined) return this.#keys
    const key = this.#find().reveal()
    assert(key.length === KEY_BYTES, 'the key for secrets of people has 32 bytes')
    const derive = (info: string) => Buffer.from(hkdfSync('sha256', key, '', info, KEY_BYTES))
    this.#keys = { key, macKey: derive('resus: marks of sessions'), rowKey: derive('resus: seals of rows') }
    return this.#keys
  }

  seal(plain: Uint8Array, context: string): Buffer {
    const nonce = randomBytes(NONCE_BYTES)
    const cipher = createCipheriv('aes-256-gcm', this.#there().key, nonce).setAAD(Buffer.from(context))
    const sealed = Buffer.concat([cipher.update(plain), cipher.final()])
    return Buffer.concat([nonce, cipher.getAuthTag(), sealed])
  }

  /** Throws SECRET_UNREADABLE for what was sealed under another key, in another context, or was changed. */
  open(sealed: Buffer, context: string): Buffer {
    const tagEnd = NONCE_BYTES + TAG_BYTES
    try {
      const nonce = sealed.subarray(0, NONCE_BYTES)
      const decipher = createDecipheriv('aes-256-gcm', this.#there().key, nonce, { authTagLength: TAG_BYTES })
      decipher.setAAD(Buffer.from(context)).setAuthTag(sealed.subarray(NONCE_BYTES, tagEnd))
      return Buffer.concat([decipher.update(sealed.subarray(tagEnd)), decipher.final()])
    } catch (cause) {
      throw new Failure('SECRET_UNREADABLE', "a person's secret in the store does not open", {
        hint: 'it was sealed under another key, or somebody has changed the store: reset the factors of this person',
        cause,
      })
    }
  }

  /** 16 bytes that nobody else can make for this purpose and text. */
  mark(purpose: string, text: string): Buffer {
    return createHmac('sha256', this.#there().macKey).update(`${purpose}\0${text}`).digest().subarray(0, MAC_BYTES)
  }

  /** 32 bytes: what a row of the store says that Resus has written it so. */
  sealRow(kind: string, text: string): Buffer {
    return createHmac('sha256', this.#there().rowKey).update(`${kind}\0${text}`).digest()
  }

  /** In constant time. A row without a seal fits none. */
  isRowSealed(given: Buffer | null, kind: string, text: string): boolean {
    const wanted = this.sealRow(kind, text)
    return given !== null && given.length === wanted.length && timingSafeEqual(given, wanted)
  }

  /** 43 characters that follow from a text and that nobody else can tell. */
  derive(purpose: string, text: string): string {
    return createHmac('sha256', this.#there().macKey).update(`${purpose}\0${text}`).digest('base64url')
  }

  /** In constant time. */
  isMark(given: Buffer, purpose: string, text: string): boolean {
    return given.length === MAC_BYTES && timingSafeEqual(given, this.mark(purpose, text))
  }
}

/** What the store keeps of something that is random enough to need no salt. */
export function digestOf(secret: string | Uint8Array): Buffer {
  return createHash('sha256').update(secret).digest()
}

/** 43 characters that nobody guesses. */
export function randomSecret(): string {
  return randomBytes(KEY_BYTES).toString('base64url')
}
