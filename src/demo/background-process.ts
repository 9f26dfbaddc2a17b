import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure } from '../errors.ts'

const START_TIMEOUT_MS = 30_000
const END_TIMEOUT_MS = 20_000
const POLL_MS = 50

export interface BackgroundProcessOptions {
  /** What it is called when it fails. */
  readonly name: string
  /** Of Node.js: a program and its arguments. */
  readonly args: readonly string[]
  /** What it says goes to the end of this file. */
  readonly logFile: string
  readonly environment?: Readonly<Record<string, string>>
}

/** A process that runs beside the demo. Close it: then it has ended, cleanly if it can. */
export class BackgroundProcess {
  readonly #options: BackgroundProcessOptions
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>

  private constructor(options: BackgroundProcessOptions, child: ChildProcess) {
    this.#options = options
    this.#child = child
    this.#ended = new Promise((settle) => child.once('close', settle))
    // It is seen as an exit that was not asked for.
    child.once('error', () => undefined)
  }

  static start(options: BackgroundProcessOptions): BackgroundProcess {
    const log = openSync(options.logFile, 'a', 0o600)
    const env = { ...process.env, ...options.environment }
    // A group of its own: a terminal's Ctrl-C is for us, and we end what we started in the right order.
    const child = spawn(process.execPath, [...options.args], { stdio: ['ignore', log, log], detached: true, env })
    closeSync(log)
    return new BackgroundProcess(options, child)
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** Waits until `look` gives something. Throws POSTGRES_FAILED when the process ends or takes too long. */
  async ready<Found>(look: () => Promise<Found | undefined | false>, signal: AbortSignal): Promise<Found> {
    const deadline = performance.now() + START_TIMEOUT_MS
    while (performance.now() < deadline) {
      signal.throwIfAborted()
      if (this.#child.exitCode !== null) throw await this.#failure(`ended with exit status ${this.#child.exitCode}`)
      const found = await look()
      if (found !== undefined && found !== false) return found
      await delay(POLL_MS, undefined, { signal })
    }
    throw await this.#failure(`was not ready after ${START_TIMEOUT_MS / 1000} s`)
  }

  /** Ends it and waits: SIGTERM first, SIGKILL when that does not help. */
  async close(): Promise<void> {
    this.#child.kill('SIGTERM')
    const inTime = await Promise.race([this.#ended.then(() => true), delay(END_TIMEOUT_MS, false, { ref: false })])
    if (inTime) return
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  async #failure(what: string): Promise<Failure> {
    const { name, logFile } = this.#options
    const said = (await readFile(logFile, 'utf8')).trim().split('\n').slice(-5).join('\n')
    return new Failure('POSTGRES_FAILED', `"${name}" ${what}: ${said}`, { hint: `its log is "${logFile}"` })
  }
}
