import { resolve } from 'node:path'
import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { parseSecretReference, resolveSecret, secretReferenceSchema } from '../config/secret-reference.ts'
import { Failure } from '../errors.ts'
import { alarmKey, alarmOf } from './alarm-kinds.ts'
import { readAuthorities } from './authorities.ts'
import type { Notices } from './notices.ts'
import { callOut } from './outgoing.ts'
import { requireTaken } from './webhook.ts'

const FAILURES_TOLD = 3
const PLACE = { system: 'Resus' }

/** An outside watch, which tells people when it has not heard from us for a while: nobody else notices that Resus itself is dead. */
export const deadManSchema = z
  .strictObject({
    url: z
      .union([secretReferenceSchema, z.url({ protocol: /^https?$/ })])
      .describe('what is called, or a reference to it: whoever has it can keep the watch quiet'),
    method: z.enum(['GET', 'POST']).default('GET'),
    everySeconds: z.int().min(10).max(3600).default(60),
    allowPrivate: z.boolean().default(false).describe('whether it may be on the inner network, and on this host without TLS'),
    ca: z.string().min(1).optional().describe('a file of certificates (PEM) that are trusted instead of the public ones'),
  })
  .refine(({ url, allowPrivate }) => allowPrivate || !url.startsWith('http:'), { path: ['url'], message: '"https://host/path"' })

export interface DeadManOptions extends Omit<z.infer<typeof deadManSchema>, 'everySeconds'> {
  readonly everyMs: number
  /** Of the configuration file: what is relative is relative to it. */
  readonly directory: string
  /** Whether protection is at work; while it is not, nothing is sent. */
  readonly healthy: () => boolean | Promise<boolean>
  readonly notices: Pick<Notices, 'raise' | 'clear'>
  readonly clock: Clock
}

/** Calls the outside watch while all is well. That it does not get through is told once, after three times in a row. */
export class DeadMan implements AsyncDisposable {
  readonly #options: DeadManOptions
  readonly #stop = new AbortController()
  #running: Promise<void> = Promise.resolve()
  #failures = 0
  /** Unknown at first: an alarm may be left of the last run. */
  #isTold = true

  private constructor(options: DeadManOptions) {
    this.#options = options
  }

  static start(options: DeadManOptions): DeadMan {
    const deadMan = new DeadMan(options)
    deadMan.#running = deadMan.#run()
    return deadMan
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { clock, everyMs } = this.#options
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#beat()
      // Ends early when we are told to stop.
      await clock.sleep(everyMs, signal).catch(() => undefined)
    }
  }

  async #beat(): Promise<void> {
    try {
      // A check that fails is no sign of health.
      if (!(await this.#options.healthy())) return
    } catch {
      return
    }
    try {
      await this.#call()
      await this.#tellSuccess()
    } catch (error) {
      if (!this.#stop.signal.aborted) await this.#tellFailure(error)
    }
  }

  async #call(): Promise<void> {
    const { url, directory, method, allowPrivate, ca } = this.#options
    const reference = parseSecretReference(url, directory)
    const address =
      reference === undefined
        ? url
        : (await resolveSecret(reference, 'the address of the outside watch')).reveal().toString('utf8')
    const status = await callOut({
      url: address,
      method,
      headers: { 'user-agent': 'Resus' },
      ...(method === 'POST' ? { body: '' } : {}),
      allowPrivate,
      ...(ca === undefined ? {} : { ca: await readAuthorities(resolve(directory, ca)) }),
      signal: this.#stop.signal,
    })
    requireTaken(status)
  }

  async #tellSuccess(): Promise<void> {
    this.#failures = 0
    if (!this.#isTold) return
    await this.#options.notices.clear(alarmKey('DEAD_MAN_FAILED', PLACE), 'the outside watch hears from Resus')
    this.#isTold = false
  }

  async #tellFailure(error: unknown): Promise<void> {
    this.#failures += 1
    if (this.#failures < FAILURES_TOLD) return
    this.#isTold = true
    const text = error instanceof Failure ? error.message : 'the call failed in a way that nobody foresaw'
    await this.#options.notices.raise(alarmOf('DEAD_MAN_FAILED', { ...PLACE, text })).catch(() => undefined)
  }
}
