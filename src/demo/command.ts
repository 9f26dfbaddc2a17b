import { spawn } from 'node:child_process'
import { appendFile } from 'node:fs/promises'
import { Failure } from '../errors.ts'

const TIMEOUT_MS = 300_000

export interface CommandOptions {
  readonly name: string
  /** Of Node.js: the program's file, its verb, and more. */
  readonly args: readonly string[]
  /** What was run and what it said goes to the end of this file. */
  readonly logFile: string
  /** Exit statuses with which it has done what it is for; 0 alone unless said otherwise. */
  readonly statuses?: readonly number[]
  /** What it prints is not for the log. */
  readonly isSecret?: boolean
  readonly signal: AbortSignal
}

/** Runs a program to its end. Throws POSTGRES_FAILED with what it said, for any other exit status. */
export async function runCommand(options: CommandOptions): Promise<{ stdout: string; status: number }> {
  const { name, args, logFile, statuses = [0], isSecret = false, signal } = options
  const child = spawn(process.execPath, [...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: a terminal's Ctrl-C is for us, and we end what we started in the right order.
    detached: true,
    timeout: TIMEOUT_MS,
  })
  const abort = () => void child.kill('SIGTERM')
  signal.addEventListener('abort', abort)
  try {
    const ended = new Promise<number>((settle, reject) => {
      child.once('error', reject)
      child.once('close', (code) => settle(code ?? 1))
    })
    const [stdout, stderr, status] = await Promise.all([text(child.stdout), text(child.stderr), ended])
    const shown = isSecret ? '' : stdout
    await appendFile(logFile, `$ ${name} ${args.slice(1).join(' ')}\n${stderr}${shown}exit status ${status}\n\n`)
    signal.throwIfAborted()
    if (statuses.includes(status)) return { stdout, status }
    throw new Failure(
      'POSTGRES_FAILED',
      `"${name} ${args[1]}" ended with exit status ${status}: ${stderr.trim() || stdout.trim()}`,
      {
        hint: `all that was run is in "${logFile}"`,
      },
    )
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

async function text(stream: AsyncIterable<Buffer>): Promise<string> {
  const pieces: Buffer[] = []
  for await (const piece of stream) pieces.push(piece)
  return Buffer.concat(pieces).toString('utf8')
}
