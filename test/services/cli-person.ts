import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { generateSync } from 'otplib'
import type { Clock } from '../../src/clock.ts'
import { HANGS_AFTER_MS } from './wait-until.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const STEP_MS = 30_000
/** A code of the step before is good for the rest of this one: with so much of it left, also on a slow machine. */
const SPARE_MS = 15_000

/** What a question looks like, and what is answered; of what was printed so far. */
export type Exchange = readonly [question: RegExp, answer: string | ((printed: string) => string)]

export interface Said {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  /** The JSON document. */
  readonly body: Record<string, unknown>
  readonly code: string | undefined
}

/** Somebody at a command line: with a runtime directory, a password and an authenticator of their own. */
export class CliPerson {
  readonly name: string
  readonly password: string
  readonly runtime: string
  /** All that its commands have written. */
  readonly printed: string[] = []
  readonly #url: string
  readonly #clock: Clock
  #secret = ''
  #step = 0

  static async open(name: string, options: { readonly url: string; readonly home: string; readonly clock: Clock }) {
    const person = new CliPerson(name, options)
    await mkdir(person.runtime, { mode: 0o700 })
    return person
  }

  private constructor(
    name: string,
    { url, home, clock }: { readonly url: string; readonly home: string; readonly clock: Clock },
  ) {
    this.name = name
    this.password = `seven storks over ${name}s lagoon`
    this.runtime = join(home, name)
    this.#url = url
    this.#clock = clock
  }

  /** Runs a verb, on a pipe, and answers what it asks, in order. */
  async run(verb: string, exchanges: readonly Exchange[] = [], env: Record<string, string> = {}): Promise<Said> {
    const child = spawn(process.execPath, [MAIN, ...verb.split(' '), '--json'], {
      env: { ...process.env, XDG_RUNTIME_DIR: this.runtime, RESUS_URL: this.#url, ...env },
      // One that waits for an answer to something else than was expected.
      timeout: HANGS_AFTER_MS / 3,
    })
    let [stdout, stderr, heard] = ['', '', 0]
    const left = [...exchanges]
    const ended = Promise.withResolvers<number>()
    child.once('close', (code) => ended.resolve(code ?? -1))
    // It may end without having read everything.
    child.stdin.on('error', () => undefined)
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    const answer = (): void => {
      for (let next = left[0]; next !== undefined; next = left[0]) {
        const found = next[0].exec(stderr.slice(heard))
        if (found === null) return
        heard += found.index + found[0].length
        left.shift()
        child.stdin.write(`${typeof next[1] === 'string' ? next[1] : next[1](stderr)}\n`)
      }
      child.stdin.end()
    }
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
      try {
        if (!child.stdin.writableEnded) answer()
      } catch (error) {
        child.kill()
        ended.reject(error as Error)
      }
    })
    if (left.length === 0) child.stdin.end()
    const status = await ended.promise
    this.printed.push(stdout, stderr)
    const document: unknown = stdout === '' ? {} : JSON.parse(stdout)
    const body = Array.isArray(document) ? { items: document } : (document as Record<string, unknown>)
    const error = body['error'] as { readonly code: string } | undefined
    if (status === 0) assert.equal(left.length, 0, `${verb} never asked ${String(left[0]?.[0])}: ${stderr}`)
    return { status, stdout, stderr, body, code: error?.code }
  }

  /** Runs what has to succeed. */
  async does(verb: string, exchanges: readonly Exchange[] = []): Promise<Said> {
    const said = await this.run(verb, exchanges)
    assert.equal(said.status, 0, `${this.name}: ${verb}: ${said.stderr}`)
    return said
  }

  /** Runs what has to be refused; gives the code and what was said. */
  async refused(verb: string, exchanges: readonly Exchange[] = []): Promise<readonly [string | undefined, string]> {
    const said = await this.run(verb, exchanges)
    assert.notEqual(said.status, 0, `${this.name}: ${verb}: ${said.stdout}`)
    return [said.code, said.stderr]
  }

  /** The answers that choose a password and make the first second factor. */
  enrolment(): readonly Exchange[] {
    return [
      [/a new password.*: /, this.password],
      [/once more: /, this.password],
      [
        /that it shows now: /,
        (printed) => {
          this.#secret = /secret +(\S+)/.exec(printed)![1]!
          return this.code()
        },
      ],
    ]
  }

  /** The answers of an ordinary log-on. */
  logOn(): readonly Exchange[] {
    return [
      [/^name: /, this.name],
      [/password: /, this.password],
      [/code of the authenticator.*: /, () => this.code()],
    ]
  }

  /** One that was not used yet; fails when there is none: then the clock has to move. */
  code(): string {
    const nowMs = this.#clock.now()
    const now = Math.floor(nowMs / STEP_MS)
    const first = nowMs % STEP_MS < STEP_MS - SPARE_MS ? now - 1 : now
    this.#step = Math.max(first, this.#step + 1)
    assert(this.#step <= now + 1, 'all codes that are good now were used')
    return this.#codeOf(this.#step)
  }

  /** The one that was given last. */
  usedCode(): string {
    return this.#codeOf(this.#step)
  }

  wrongCode(): string {
    return String((Number(this.#codeOf(this.#step)) + 1) % 1_000_000).padStart(6, '0')
  }

  /** What this account keeps of a session. */
  async session(): Promise<{ readonly cookie: string; readonly csrf: string; readonly path: string }> {
    const directory = join(this.runtime, 'resus')
    const [name, ...others] = await readdir(directory)
    assert(name !== undefined && others.length === 0, 'there is one session, and no draft of one')
    const path = join(directory, name)
    return { ...(JSON.parse(await readFile(path, 'utf8')) as { cookie: string; csrf: string }), path }
  }

  /** "POST /path" below /api/v1, in that session. */
  async ask(what: string, body: unknown): Promise<{ readonly status: number; readonly body: Record<string, unknown> }> {
    const [method = 'GET', path = ''] = what.split(' ')
    const { cookie, csrf } = await this.session()
    const answer = await fetch(`${this.#url}/api/v1${path}`, {
      method,
      headers: { cookie, 'x-resus-csrf': csrf, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    return { status: answer.status, body: (await answer.json()) as Record<string, unknown> }
  }

  #codeOf(step: number): string {
    return generateSync({ secret: this.#secret, epoch: (step * STEP_MS) / 1000 })
  }
}
