import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { TestContext } from 'node:test'
import { waitUntil } from './wait-until.ts'

const MAIN = fileURLToPath(new URL('../../src/server/main.ts', import.meta.url))

/** A `resus serve` in a process of its own, as one of several on a store. */
export interface NodeProcess {
  readonly name: string
  readonly pid: number
  /** Below /api/v1. */
  ask(what: string, body?: unknown): Promise<{ readonly status: number; readonly body: Record<string, unknown> }>
  /** SIGKILL to it and to all that it started, as when its host loses power. */
  kill(): Promise<void>
  stop(): Promise<void>
}

/** Starts a node with a copy of a configuration in which its state, and so its spool, is its own. */
export async function nodeProcess(
  t: TestContext,
  options: {
    readonly name: string
    readonly home: string
    readonly configuration: Record<string, unknown>
    readonly databaseUrl: string
    readonly settings?: Record<string, unknown>
  },
): Promise<NodeProcess> {
  const { name, databaseUrl } = options
  const directory = join(options.home, name)
  await mkdir(directory, { recursive: true })
  const configPath = join(directory, 'resus.yaml')
  await writeFile(configPath, JSON.stringify({ ...options.configuration, state: join(directory, 'state') }))
  await writeFile(
    join(directory, 'server.yaml'),
    JSON.stringify({ listen: '127.0.0.1:0', node: name, state: join(directory, 'server'), ...options.settings }),
  )
  const child = spawn(process.execPath, [MAIN, '--config', configPath], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, RESUS_DATABASE_URL: databaseUrl },
  })
  child.stderr.on('data', (text: Buffer) => t.diagnostic(`${name}: ${text.toString().trimEnd()}`))
  let output = ''
  child.stdout.on('data', (text: Buffer) => (output += text.toString()))
  const ended = once(child, 'close')
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
    await ended
  })
  await waitUntil(`node ${name} answers`, () => {
    if (child.exitCode !== null) throw new Error(`node ${name} ended with status ${child.exitCode}`)
    return /resus serve: http/.test(output)
  })
  const url = /resus serve: (http:\/\/[^/]+)/.exec(output)?.[1] ?? ''
  const token = (await readFile(join(directory, 'server/administrator-token'), 'utf8')).trim()
  return {
    name,
    pid: child.pid ?? 0,
    ask: async (what, body) => {
      const [method = '', path = ''] = what.split(' ')
      const answer = await fetch(`${url}/api/v1${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      return { status: answer.status, body: (await answer.json()) as Record<string, unknown> }
    },
    kill: async () => {
      await killTree(child)
      await ended
    },
    stop: async () => {
      child.kill('SIGTERM')
      await ended
    },
  }
}

async function killTree(child: ChildProcess): Promise<void> {
  const pids = [child.pid ?? 0]
  // Stopped first, so that none of them sees another go.
  for (const pid of pids) {
    signal(pid, 'SIGSTOP')
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry) || pids.includes(Number(entry))) continue
      const stat = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '')
      if (Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid) pids.push(Number(entry))
    }
  }
  for (const pid of pids) signal(pid, 'SIGKILL')
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It has gone.
  }
}
