import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

const SAMPLE_MS = 50
const CLOCK_TICKS_PER_SECOND = 100
/** A command that says more than this on its way to a failure is cut off. */
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024

export interface MeasuredCommand {
  /** From the start of the process to its end. */
  readonly seconds: number
  /** User and system time of the command and its children. One command is measured at a time. */
  readonly cpuSeconds: number
  /** Greatest sum of the resident memory of the command and its children, sampled; of a process alone, as the kernel noted it. */
  readonly peakBytes: number
  readonly stdout: string
}

/** Runs a command to its end and measures it. Throws an Error with what it said when its exit status is not 0. */
export async function measureCommand(
  program: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<MeasuredCommand> {
  const cpuBefore = await childrenCpuSeconds()
  const begun = performance.now()
  const child = spawn(program, args, { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      if (output[name].length < OUTPUT_BYTES_MAX) output[name] += text
    })
  }
  let running = true
  const ended = new Promise<{ status: string; seconds: number }>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => {
      running = false
      resolve({ status: String(signal ?? code), seconds: (performance.now() - begun) / 1000 })
    })
  })
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()))
  ended.catch(() => (running = false))
  let peakBytes = 0
  while (running && child.pid !== undefined) {
    peakBytes = Math.max(peakBytes, await residentBytes(child.pid))
    await Promise.race([delay(SAMPLE_MS), ended.catch(() => undefined)])
  }
  const { status, seconds } = await ended
  await closed
  const cpuSeconds = (await childrenCpuSeconds()) - cpuBefore
  if (status === '0') return { seconds, cpuSeconds, peakBytes, stdout: output.stdout }
  throw new Error(`${program} ${args.join(' ')} ended with ${status}: ${output.stderr.trim()} ${output.stdout.trim()}`)
}

/** What the kernel has noted of children that have ended, and of theirs (cutime and cstime). */
async function childrenCpuSeconds(): Promise<number> {
  const stat = await readFile('/proc/self/stat', 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[13]) + Number(fields[14])) / CLOCK_TICKS_PER_SECOND
}

async function residentBytes(pid: number): Promise<number> {
  const processes = await withChildren(pid)
  const statuses = await Promise.all(processes.map((each) => readUnlessGone(`/proc/${each}/status`)))
  const now = statuses.reduce((sum, status) => sum + kibibytes(status, 'VmRSS'), 0)
  return 1024 * Math.max(now, kibibytes(statuses[0] ?? '', 'VmHWM'))
}

async function withChildren(pid: number): Promise<number[]> {
  const found = [pid]
  for (const parent of found) {
    const children = await readUnlessGone(`/proc/${parent}/task/${parent}/children`)
    found.push(...children.split(' ').filter(Boolean).map(Number))
  }
  return found
}

function kibibytes(status: string, field: 'VmRSS' | 'VmHWM'): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0)
}

async function readUnlessGone(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => '')
}
