import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { appendFile, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure } from '../errors.ts'
import type { DemoDirectory } from './demo-directory.ts'

// The demo protects its hospital with the command line that everybody has.

const MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url))
const COMMAND_TIMEOUT_MS = 180_000
const STREAM_START_TIMEOUT_MS = 20_000
const STREAM_END_TIMEOUT_MS = 20_000

/** Runs a verb to its end and gives its JSON document. Throws POSTGRES_FAILED with what the verb said, when its status is not 0. */
export async function runResus<T>(
  directory: DemoDirectory,
  verb: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<T> {
  const child = spawn(process.execPath, [MAIN, verb, ...args, '--config', directory.configuration, '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: a terminal's Ctrl-C is for us, and we end what we started in the right order.
    detached: true,
    timeout: COMMAND_TIMEOUT_MS,
  })
  const abort = () => void child.kill('SIGTERM')
  signal.addEventListener('abort', abort)
  try {
    const [stdout, stderr, status] = await Promise.all([text(child.stdout), text(child.stderr), ended(child)])
    await appendFile(directory.commandLog, `$ resus ${verb} ${args.join(' ')}\n${stderr}${stdout}exit status ${status}\n\n`)
    signal.throwIfAborted()
    if (status === 0) return JSON.parse(stdout) as T
    throw new Failure('POSTGRES_FAILED', `"resus ${verb}" ended with exit status ${status}: ${stderr.trim() || stdout.trim()}`, {
      hint: `all that was run is in "${directory.commandLog}"`,
    })
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** `resus stream`, running. Close it: then it has ended, cleanly. */
export class Receiver {
  readonly #child: ChildProcess
  readonly #ended: Promise<number>
  readonly #log: string

  private constructor(child: ChildProcess, log: string) {
    this.#child = child
    this.#ended = ended(child)
    this.#log = log
  }

  /** Starts it, and resolves when it has connected to the server. Throws POSTGRES_FAILED when it ends or takes too long. */
  static async start(directory: DemoDirectory, component: string): Promise<Receiver> {
    const log = openSync(directory.streamLog, 'a', 0o600)
    const args = [MAIN, 'stream', component, '--config', directory.configuration]
    const child = spawn(process.execPath, args, { stdio: ['ignore', log, log], detached: true })
    closeSync(log)
    return new Receiver(child, directory.streamLog)
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** Waits until `connected` says yes. */
  async ready(connected: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + STREAM_START_TIMEOUT_MS
    while (performance.now() < deadline) {
      signal.throwIfAborted()
      if (this.#child.exitCode !== null) throw await this.#failure(`ended with exit status ${this.#child.exitCode}`)
      if (await connected()) return
      await delay(50, undefined, { signal })
    }
    throw await this.#failure(`was not connected after ${STREAM_START_TIMEOUT_MS / 1000} s`)
  }

  /** Ends it and waits: SIGTERM first, SIGKILL when that does not help. */
  async close(): Promise<void> {
    this.#child.kill('SIGTERM')
    const status = await Promise.race([this.#ended, delay(STREAM_END_TIMEOUT_MS, undefined, { ref: false })])
    if (status !== undefined) return
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  async #failure(what: string): Promise<Failure> {
    const said = (await readFile(this.#log, 'utf8')).trim().split('\n').slice(-5).join('\n')
    return new Failure('POSTGRES_FAILED', `"resus stream" ${what}: ${said}`, { hint: `its log is "${this.#log}"` })
  }
}

function ended(child: ChildProcess): Promise<number> {
  return new Promise((settle, reject) => {
    child.once('error', reject)
    child.once('close', (status) => settle(status ?? 1))
  })
}

async function text(stream: AsyncIterable<Buffer>): Promise<string> {
  const pieces: Buffer[] = []
  for await (const piece of stream) pieces.push(piece)
  return Buffer.concat(pieces).toString('utf8')
}
