import { spawn } from 'node:child_process'
import { z } from 'zod'
import { systemErrorCode } from '../../../errors.ts'
import type { Finding } from '../check-list.ts'
import type { CommandCheckSettings } from './checks-schema.ts'
import type { CheckedCopy, ContentCheck } from './content-check.ts'

// Commands of the configuration: they are told where the copy is, and judge it.

const OUTPUT_BYTES_MAX = 4 * 1024 * 1024
const SAID_CHARACTERS_MAX = 4000
const KILL_AFTER_MS = 5000

/** What a command may print: as `hospital check --json` does. */
const documentSchema = z.object({
  checks: z
    .array(
      z.object({
        name: z.string().max(200),
        verdict: z.enum(['passed', 'verified', 'failed', 'not proven', 'skipped']),
        expected: z.string().max(2000).optional(),
        found: z.string().max(2000).optional(),
        durationMs: z.number().nonnegative().optional(),
        findings: z.unknown().optional(),
      }),
    )
    .max(1000),
})

/** One command: exit status 0 is verified, unless what it prints says less. */
export function commandCheck(settings: CommandCheckSettings, more: { database: string }): ContentCheck {
  return {
    name: `command: ${settings.name}`,
    expected: 'exit status 0, and nothing failed in what it prints',
    own: true,
    look: async (copy) => look(copy, settings, settings.database ?? more.database),
  }
}

async function look(copy: CheckedCopy, { run, minutes }: CommandCheckSettings, database: string): Promise<Finding> {
  const tool = await copy.server.toolEnvironment(database)
  const environment = {
    ...tool,
    // A command may look as each facility does: for that row security has to be in force.
    PGOPTIONS: (tool.PGOPTIONS ?? '').replace('row_security=off', 'row_security=on'),
    PATH: process.env.PATH ?? '/usr/bin:/bin',
    LANG: process.env.LANG ?? 'C.UTF-8',
    HOME: process.env.HOME ?? '/',
    ...(copy.askedMs === null ? {} : { RESUS_DRILL_TARGET: new Date(copy.askedMs).toISOString() }),
  }
  const ended = await runBounded(run, { environment, timeoutMs: minutes * 60_000, signal: copy.signal })
  if (ended.absent !== undefined) return { verdict: 'not proven', found: `"${run[0]}" cannot be run here: ${ended.absent}` }
  if (ended.timedOut) return { verdict: 'not proven', found: `it did not end in ${minutes} minutes` }
  return judge(ended)
}

function judge({ status, output, said }: Ended): Finding {
  const document = documentSchema.safeParse(tryJson(output))
  const findings = said === '' ? {} : { findings: said }
  if (!document.success) {
    const found = `exit status ${String(status)}, no document of checks`
    return status === 0 ? { verdict: 'verified', found } : { verdict: 'failed', found, ...findings }
  }
  const parts = document.data.checks.map((each) => ({
    name: each.name,
    verdict: each.verdict === 'passed' ? ('verified' as const) : each.verdict,
    expected: each.expected ?? '',
    found: each.found ?? '',
    seconds: (each.durationMs ?? 0) / 1000,
    findings: each.findings,
  }))
  const count = (verdict: string) => parts.filter((part) => part.verdict === verdict).length
  const found = `exit status ${String(status)}: ${count('verified')} of ${parts.length} verified, ${count('failed')} failed, ${count('not proven') + count('skipped')} not proven`
  if (status !== 0 || count('failed') > 0) return { verdict: 'failed', found, parts, ...findings }
  return { verdict: count('verified') > 0 ? 'verified' : 'not proven', found, parts }
}

interface Ended {
  readonly status: number | null
  readonly output: string
  /** The end of what it wrote to standard error. */
  readonly said: string
  readonly timedOut: boolean
  /** Why it could not be started. */
  readonly absent?: string | undefined
}

/** In a process group of its own, which is ended with it, whatever it has started. */
async function runBounded(
  [program, ...args]: readonly string[],
  options: { environment: Record<string, string>; timeoutMs: number; signal: AbortSignal },
): Promise<Ended> {
  const { environment, timeoutMs, signal } = options
  signal.throwIfAborted()
  const child = spawn(program!, args, { env: environment, detached: true, stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' })
  const killGroup = (name: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, name)
    } catch (error) {
      if (systemErrorCode(error) !== 'ESRCH') throw error
    }
  }
  let timedOut = false
  const end = () => {
    killGroup('SIGTERM')
    setTimeout(() => killGroup('SIGKILL'), KILL_AFTER_MS).unref()
  }
  const timer = setTimeout(() => {
    timedOut = true
    end()
  }, timeoutMs)
  signal.addEventListener('abort', end, { once: true })
  const output = new Tail(OUTPUT_BYTES_MAX)
  const said = new Tail(SAID_CHARACTERS_MAX)
  child.stdout.on('data', (chunk: Buffer) => output.add(chunk))
  child.stderr.on('data', (chunk: Buffer) => said.add(chunk))
  try {
    return await new Promise<Ended>((resolve) => {
      const ended = (status: number | null, absent?: string) =>
        resolve({ status, output: output.text, said: said.text.slice(-SAID_CHARACTERS_MAX), timedOut, absent })
      child.once('error', (error) => ended(null, systemErrorCode(error) ?? error.message))
      child.once('close', (status) => ended(status))
    })
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', end)
    // Whoever is left of the group holds the copy.
    killGroup('SIGKILL')
    signal.throwIfAborted()
  }
}

/** The end of what was written: so much is kept, and no more. */
class Tail {
  readonly #bytesMax: number
  #chunks: Buffer[] = []
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  add(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes < 2 * this.#bytesMax) return
    this.#chunks = [Buffer.concat(this.#chunks).subarray(-this.#bytesMax)]
    this.#bytes = this.#bytesMax
  }

  get text(): string {
    return Buffer.concat(this.#chunks).subarray(-this.#bytesMax).toString('utf8')
  }
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}
