import { spawn, type ChildProcess } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { testCluster, type TestCluster } from './postgres.ts'
import { waitUntil } from './wait-until.ts'

export const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

export interface Outcome {
  /** Null when it was killed. */
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A server as Debian has it: its own account comes in by the socket, everybody else by password. */
export class FreshServer {
  readonly cluster: TestCluster
  readonly config: string

  private constructor(cluster: TestCluster) {
    this.cluster = cluster
    this.config = join(cluster.home, 'etc', 'resus.yaml')
  }

  static async start(t: TestContext, major: number): Promise<FreshServer> {
    const cluster = await testCluster(t, { major, walSegmentMegabytes: 1 })
    const rules = [
      'local all postgres trust',
      'host all all 127.0.0.1/32 scram-sha-256',
      'host replication all 127.0.0.1/32 scram-sha-256',
    ]
    await writeFile(join(cluster.directory, 'pg_hba.conf'), `${rules.join('\n')}\n`)
    await cluster.stop()
    await cluster.start()
    return new FreshServer(cluster)
  }

  /** The flags without which `--yes` refuses here: there is one disk, and other clusters run. */
  get flags(): string[] {
    const { directory, home } = this.cluster
    return ['--cluster', directory, '--storage', join(home, 'repository'), '--same-device', '--system', 'osun-his']
  }

  async run(...args: string[]): Promise<Outcome> {
    return await this.start(args).ended
  }

  /** Starts it; `onLine` sees each line of standard error as it comes. */
  start(
    args: readonly string[],
    onLine: (line: string, child: ChildProcess) => void = () => undefined,
  ): { ended: Promise<Outcome> } {
    const env = { ...process.env }
    delete env.RESUS_CONFIG
    const child = spawn(process.execPath, [MAIN, ...args, '--config', this.config], { stdio: ['ignore', 'pipe', 'pipe'], env })
    let [stdout, stderr, line] = ['', '', '']
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()))
    child.stderr.on('data', (data: Buffer) => {
      stderr += data.toString()
      const lines = (line + data.toString()).split('\n')
      line = lines.pop() ?? ''
      for (const each of lines) onLine(each, child)
    })
    const ended = new Promise<Outcome>((resolve) => child.once('close', (status) => resolve({ status, stdout, stderr })))
    return { ended }
  }

  /** As the superuser, through the socket. */
  async query<Row extends pg.QueryResultRow>(text: string): Promise<Row[]> {
    const { home, port } = this.cluster
    const client = new pg.Client({ host: join(home, 'socket'), port, user: 'postgres', database: 'postgres' })
    await client.connect()
    try {
      return (await client.query<Row>(text)).rows
    } finally {
      await client.end()
    }
  }

  async waitFor(what: string, sql: string): Promise<void> {
    await waitUntil(what, async () => Object.values((await this.query(sql))[0] ?? {})[0] === true)
  }
}
