import { argon2, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { Failure } from '../errors.ts'
import { COMMON_PASSWORDS } from './common-passwords.ts'

const hashWith = promisify(argon2)
const MEMORY_KIB = 65_536
const PASSES = 3
const LANES = 1
const TAG_BYTES = 32
const SALT_BYTES = 16
const AT_ONCE = 2
const WAITING_MAX = 20
const CHARACTERS_MIN = 12
const CHARACTERS_MAX = 200
/** Of what remains without the name. */
const BESIDE_NAME_MIN = 8
const DISTINCT_MIN = 5
const PHC = /^\$argon2id\$v=19\$m=(\d{1,6}),t=(\d{1,2}),p=(\d)\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$/
/** Of nobody's password: looked at where there is nobody, so that the time it takes tells nothing. */
const NOBODYS = `$argon2id$v=19$m=${MEMORY_KIB},t=${PASSES},p=${LANES}$kB1eZbA2lWY5xM0VYlGtYQ$9xEw0lRrKjJ0m7QpYx7sQm6cVfQm0m3VqjZC1nq0H2s`

/** Hashes passwords, two at once: each takes 64 MiB for a third of a second. */
export class PasswordHashes {
  #running = 0
  readonly #waiting: (() => void)[] = []

  /** As PHC text. Throws BUSY. */
  async hash(password: string): Promise<string> {
    const salt = randomBytes(SALT_BYTES)
    const tag = await this.#hash(password, { salt, memory: MEMORY_KIB, passes: PASSES, lanes: LANES, tagBytes: TAG_BYTES })
    return `$argon2id$v=19$m=${MEMORY_KIB},t=${PASSES},p=${LANES}$${base64(salt)}$${base64(tag)}`
  }

  /** Takes as long where there is no hash, and is false then. Throws BUSY. */
  async verify(password: string, phc: string | null | undefined): Promise<boolean> {
    const own = phc === null || phc === undefined ? undefined : readPhc(phc)
    const { tag, ...parameters } = own ?? readPhc(NOBODYS)!
    const found = await this.#hash(password, { ...parameters, tagBytes: tag.length })
    return timingSafeEqual(found, tag) && own !== undefined
  }

  async #hash(password: string, parameters: Argon2 & { readonly tagBytes: number }): Promise<Buffer> {
    const { salt, memory, passes, lanes, tagBytes } = parameters
    const message = normalized(password)
    await this.#enter()
    try {
      return await hashWith('argon2id', { message, nonce: salt, memory, passes, parallelism: lanes, tagLength: tagBytes })
    } finally {
      this.#leave()
    }
  }

  async #enter(): Promise<void> {
    if (this.#running < AT_ONCE) {
      this.#running += 1
      return
    }
    if (this.#waiting.length >= WAITING_MAX) {
      throw new Failure('BUSY', `${WAITING_MAX} log-ons are waiting already`, { hint: 'try again in some seconds' })
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  /** Whoever waits longest takes the place over. */
  #leave(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#running -= 1
    else next()
  }
}

/** Throws PASSWORD_WEAK; says what is wanted and not what was found. */
export function requireGoodPassword(password: string, name: string): void {
  const text = normalized(password)
  const characters = Array.from(text)
  const plain = text.toLowerCase()
  const beside = plain.replaceAll(name.toLowerCase(), '')
  if (characters.length < CHARACTERS_MIN) throw weak(`it has less than ${CHARACTERS_MIN} characters`)
  if (characters.length > CHARACTERS_MAX) throw weak(`it has more than ${CHARACTERS_MAX} characters`)
  if (beside.length < BESIDE_NAME_MIN) throw weak('it is little more than the name')
  if (new Set(plain).size < DISTINCT_MIN) throw weak('it is the same few characters again and again')
  if (COMMON_PASSWORDS.has(plain.replaceAll(/[\s._-]/g, ''))) throw weak('it is one of those that are tried first')
}

interface Argon2 {
  readonly salt: Buffer
  readonly memory: number
  readonly passes: number
  readonly lanes: number
}

/** Undefined for what is no hash of ours, or asks for more than ours do: whoever edits the store must not make us work for it. */
function readPhc(phc: string): (Argon2 & { readonly tag: Buffer }) | undefined {
  const [, memory, passes, lanes, salt = '', tag = ''] = PHC.exec(phc) ?? []
  const read = { memory: Number(memory), passes: Number(passes), lanes: Number(lanes) }
  const isOurs =
    read.memory >= 8 * LANES && read.memory <= MEMORY_KIB && read.passes >= 1 && read.passes <= PASSES && read.lanes === LANES
  return isOurs ? { ...read, salt: Buffer.from(salt, 'base64'), tag: Buffer.from(tag, 'base64') } : undefined
}

/** What looks the same is the same, whatever keyboard it comes from. */
function normalized(password: string): string {
  return password.normalize('NFKC')
}

function base64(bytes: Buffer): string {
  return bytes.toString('base64').replace(/=+$/, '')
}

function weak(why: string): Failure {
  return new Failure('PASSWORD_WEAK', `this password is not taken: ${why}`, {
    hint: `${CHARACTERS_MIN} to ${CHARACTERS_MAX} characters; some words that nobody else would put together`,
  })
}
