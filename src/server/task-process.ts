import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { assert } from '../assert.ts'

const MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url))
/** After SIGTERM; whoever has not gone then is killed. Everything it did is safe to do again. */
const END_GRACE_MS = 30_000
const RESULT_BYTES_MAX = 16 * 1024 * 1024
const LINE_CHARACTERS_MAX = 4000

const progressSchema = z.object({
  kind: z.literal('progress'),
  phase: z.string(),
  bytesDone: z.number(),
  bytesTotal: z.number(),
})
const logSchema = z.object({ kind: z.literal('log'), text: z.string() })
const errorSchema = z.object({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullable() }),
})

export type TaskProgress = Omit<z.infer<typeof progressSchema>, 'kind'>

/** How a command ended. */
export interface CommandEnd {
  /** Null when a signal ended it. */
  readonly status: number | null
  readonly result: unknown
  readonly error: { readonly code: string; readonly message: string; readonly hint: string | null } | null
}

export interface CommandOptions {
  /** Of `resus`: its verb and more; `--json`, `--progress` and `--config` are added. */
  readonly args: readonly string[]
  readonly configPath: string
  readonly onProgress: (progress: TaskProgress) => void
  readonly onLog: (text: string) => void
  /** Ends the command in good order, and kills it when it does not go. */
  readonly signal: AbortSignal
}

/** Runs a command of `resus` in a process of its own, to its end. Throws only when it cannot be started. */
export async function runCommand(options: CommandOptions): Promise<CommandEnd> {
  const { args, configPath, signal } = options
  const child = spawn(process.execPath, [MAIN, ...args, '--json', '--progress', 'json', '--config', configPath], {
    // The channel closes with us, however we end: a command that nobody knows of would stand in the way of the next attempt.
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    env: commandEnvironment(),
    // A terminal's Ctrl-C is for us, and we end what we started in the right order.
    detached: true,
  })
  const { stdout, stderr } = child
  assert(stdout !== null && stderr !== null, 'its output comes through pipes')
  let killer: NodeJS.Timeout | undefined
  const end = () => {
    child.kill('SIGTERM')
    killer = setTimeout(() => child.kill('SIGKILL'), END_GRACE_MS)
  }
  if (signal.aborted) end()
  else signal.addEventListener('abort', end, { once: true })
  try {
    const output = new BoundedText(RESULT_BYTES_MAX)
    stdout.on('data', (piece: Buffer) => output.add(piece))
    const lines = createInterface({ input: stderr, crlfDelay: Infinity })
    lines.on('line', (line) => hear(line.slice(0, LINE_CHARACTERS_MAX), options))
    const status = await new Promise<number | null>((settle, reject) => {
      child.once('error', reject)
      child.once('close', (code) => settle(code))
    })
    return endOf(status, output.text())
  } finally {
    clearTimeout(killer)
    signal.removeEventListener('abort', end)
  }
}

/** What the supervisor alone needs to know is not handed on. */
function commandEnvironment(): NodeJS.ProcessEnv {
  const environment = { ...process.env }
  delete environment.RESUS_DATABASE_URL
  delete environment.RESUS_CONFIG
  return environment
}

function hear(line: string, { onProgress, onLog }: CommandOptions): void {
  const document = parseJson(line)
  const progress = progressSchema.safeParse(document)
  if (progress.success) {
    const { phase, bytesDone, bytesTotal } = progress.data
    onProgress({ phase, bytesDone, bytesTotal })
    return
  }
  const log = logSchema.safeParse(document)
  // What is no document is a crash's stack, and wanted all the more.
  if (log.success) onLog(log.data.text.slice(0, LINE_CHARACTERS_MAX))
  else if (line.trim() !== '') onLog(line)
}

function endOf(status: number | null, text: string): CommandEnd {
  const document = parseJson(text)
  const failed = errorSchema.safeParse(document)
  if (failed.success) return { status, result: null, error: failed.data.error }
  return { status, result: document ?? null, error: null }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

/** No command prints so much; what prints more has gone wrong, and must not fill our memory. */
class BoundedText {
  readonly #max: number
  readonly #pieces: Buffer[] = []
  #bytes = 0

  constructor(max: number) {
    this.#max = max
  }

  add(piece: Buffer): void {
    this.#bytes += piece.length
    if (this.#bytes <= this.#max) this.#pieces.push(piece)
  }

  text(): string {
    return this.#bytes > this.#max ? '' : Buffer.concat(this.#pieces).toString('utf8')
  }
}
