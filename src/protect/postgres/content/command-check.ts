import { spawn, type ChildProcessByStdio } from 'node:child_process'
import type { Readable } from 'node:stream'
import { z } from 'zod'
import { systemErrorCode } from '../../../errors.ts'
import type { Finding, FindingPart } from '../check-list.ts'
import type { CommandCheckSettings } from './checks-schema.ts'
import type { CheckedCopy, ContentCheck } from './content-check.ts'

// Commands of the configuration: they are told where the copy is, and judge it.

const OUTPUT_BYTES_MAX = 4 * 1024 * 1024
const SAID_CHARACTERS_MAX = 4000
const KILL_AFTER_MS = 5000
/** After it has ended: what it wrote has come by then, and whoever holds its pipes still is not waited for. */
const PIPES_GRACE_MS = 2000
const TEXT_CHARACTERS_MAX = 2000
const CHECKS_MAX = 1000
/** What may stand in a record as it is: a command might name its checks after patients. */
const NAME = /^[\w .:()/-]{1,100}$/

/** What a command may print: as `hospital check --json` does. */
const documentSchema = z.object({
  checks: z
    .array(
      z.object({
        name: z.string(),
        verdict: z.enum(['passed', 'verified', 'failed', 'not proven', 'skipped']),
        expected: z.string().optional(),
        found: z.string().optional(),
        durationMs: z.number().nonnegative().optional(),
        findings: z.unknown().optional(),
      }),
    )
    .max(CHECKS_MAX),
})

/** One command: exit status 0 is verified, unless what it prints says less. `digest` makes of its words what may be in a record. */
export function commandCheck(
  settings: CommandCheckSettings,
  more: { database: string; digest: (text: string) => string },
): ContentCheck {
  const database = settings.database ?? more.database
  const shown = settings.trusted ? cut : (text: string) => (text === '' ? '' : `hmac-sha256:${more.digest(text)}`)
  return {
    name: `command: ${settings.name}`,
    expected: 'exit status 0, and nothing failed in what it prints',
    own: true,
    look: async (copy) => look(copy, settings, { database, shown }),
  }
}

async function look(
  copy: CheckedCopy,
  { run, minutes }: CommandCheckSettings,
  { database, shown }: { database: string; shown: (text: string) => string },
): Promise<Finding> {
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
  return judge(ended, shown)
}

function judge(ended: Ended, shown: (text: string) => string): Finding {
  const { status, said } = ended
  const findings = said === '' ? {} : { findings: said }
  const document = ended.truncated ? undefined : documentSchema.safeParse(tryJson(ended.output))
  if (document?.success !== true) return { ...judgeSilent(ended), ...findings }
  const parts = document.data.checks.map((each, index) => partOf(each, index, shown))
  const count = (verdict: string) => parts.filter((part) => part.verdict === verdict).length
  const found = `exit status ${String(status)}: ${count('verified')} of ${parts.length} verified, ${count('failed')} failed, ${count('not proven') + count('skipped')} not proven`
  if (status !== 0 || count('failed') > 0) return { verdict: 'failed', found, parts, ...findings }
  return { verdict: count('verified') > 0 ? 'verified' : 'not proven', found, parts }
}

/** Of a command that printed no document. What was meant for one, and is not understood, may say that something failed. */
function judgeSilent({ status, output, truncated }: Ended): Finding {
  const found = `exit status ${String(status)}, `
  if (truncated) return { verdict: 'failed', found: `${found}and more than ${OUTPUT_BYTES_MAX} bytes were printed` }
  if (/^[\s\uFEFF]*[[{"]/.test(output))
    return { verdict: 'failed', found: `${found}and what was printed is not a document of at most ${CHECKS_MAX} checks` }
  // An exit status alone tells nothing of what was looked at.
  return { verdict: status === 0 ? 'verified' : 'failed', found: `${found}no document of checks`, own: false }
}

type DocumentCheck = z.infer<typeof documentSchema>['checks'][number]

function partOf(each: DocumentCheck, index: number, shown: (text: string) => string): FindingPart {
  const { expected = '', found = '', findings } = each
  return {
    name: NAME.test(each.name) ? each.name : `check ${index + 1}`,
    verdict: each.verdict === 'passed' ? 'verified' : each.verdict,
    expected: shown(expected),
    found: shown(found),
    seconds: (each.durationMs ?? 0) / 1000,
    findings: { name: cut(each.name), expected: cut(expected), found: cut(found), findings },
  }
}

function cut(text: string): string {
  return text.length > TEXT_CHARACTERS_MAX ? `${text.slice(0, TEXT_CHARACTERS_MAX)}…` : text
}

interface Ended {
  readonly status: number | null
  readonly output: string
  /** It wrote more than is kept. */
  readonly truncated: boolean
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
      // EPERM: all that are left have become another user's. Nothing may be thrown inside a timer.
      const code = systemErrorCode(error)
      if (code !== 'ESRCH' && code !== 'EPERM') throw error
    }
  }
  let timedOut = false
  let killer: NodeJS.Timeout | undefined
  const end = () => {
    killGroup('SIGTERM')
    killer ??= setTimeout(() => killGroup('SIGKILL'), KILL_AFTER_MS)
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
    const ended = await endOf(child)
    const { text, truncated } = output
    return { ...ended, output: text, truncated, said: said.text.slice(-SAID_CHARACTERS_MAX), timedOut }
  } finally {
    clearTimeout(timer)
    clearTimeout(killer)
    signal.removeEventListener('abort', end)
    // Whoever is left of the group holds the copy.
    killGroup('SIGKILL')
    signal.throwIfAborted()
  }
}

/** A process that went away from the group may hold the pipes for ever. */
async function endOf(child: ChildProcessByStdio<null, Readable, Readable>): Promise<Pick<Ended, 'status' | 'absent'>> {
  let grace: NodeJS.Timeout | undefined
  try {
    return await new Promise((resolve) => {
      child.once('error', (error) => resolve({ status: null, absent: systemErrorCode(error) ?? error.message }))
      child.once('close', (status) => resolve({ status }))
      child.once('exit', (status) => (grace = setTimeout(() => resolve({ status }), PIPES_GRACE_MS)))
    })
  } finally {
    clearTimeout(grace)
    child.stdout.destroy()
    child.stderr.destroy()
  }
}

/** The end of what was written: so much is kept, and no more. */
class Tail {
  readonly #bytesMax: number
  #chunks: Buffer[] = []
  #bytes = 0
  #written = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  add(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    this.#written += chunk.length
    if (this.#bytes < 2 * this.#bytesMax) return
    this.#chunks = [Buffer.concat(this.#chunks).subarray(-this.#bytesMax)]
    this.#bytes = this.#bytesMax
  }

  get truncated(): boolean {
    return this.#written > this.#bytesMax
  }

  get text(): string {
    return Buffer.concat(this.#chunks).subarray(-this.#bytesMax).toString('utf8')
  }
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, '')) as unknown
  } catch {
    return undefined
  }
}
