import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import { replaceFile } from '../../protect/postgres/durable-file.ts'

const FILE = 'first-administrator'
const GOOD_MS = 15 * 60_000
const CODE_BYTES = 32

/** The link by which the first administrator comes: for whoever may read a file of mode 0600 on this host, while nobody is known. */
export class FirstAdministrator {
  readonly path: string
  readonly #clock: Clock
  readonly #url: () => string
  #good: { readonly digest: Buffer; readonly untilMs: number } | undefined

  constructor(options: { readonly directory: string; readonly clock: Clock; readonly url: () => string }) {
    this.path = join(options.directory, FILE)
    this.#clock = options.clock
    this.#url = options.url
  }

  /** Another link when the last is no longer good; none when somebody is known, or may be. */
  async look(mayCome: boolean): Promise<void> {
    if (!mayCome) {
      this.#good = undefined
      await rm(this.path, { force: true })
      return
    }
    if (this.#good !== undefined && this.#good.untilMs > this.#clock.now()) return
    const code = randomBytes(CODE_BYTES).toString('base64url')
    // The part behind # goes to no server and into no log.
    await replaceFile(this.path, `${this.#url()}/first-administrator#${code}\n`)
    this.#good = { digest: digestOf(code), untilMs: this.#clock.now() + GOOD_MS }
  }

  /** Uses a code up: of two who have it one comes. Throws LOG_ON_REFUSED. */
  take(code: string): void {
    const good = this.#good
    if (good !== undefined && good.untilMs > this.#clock.now() && timingSafeEqual(good.digest, digestOf(code))) {
      this.#good = undefined
      return
    }
    throw new Failure('LOG_ON_REFUSED', 'this link is not good, or no longer', {
      hint: 'the file "first-administrator" in the state of the server has another every 15 minutes, while nobody is known',
    })
  }
}

function digestOf(code: string): Buffer {
  return createHash('sha256').update(code).digest()
}
