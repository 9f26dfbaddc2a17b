import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

export const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

/** How a command ended. */
export interface Ended {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs `hospital` with these words until it ends. What the environment says of another hospital counts for nothing. */
export async function runHospital(...words: readonly string[]): Promise<Ended> {
  const { HOSPITAL_HOME: _home, HOSPITAL_DATABASE_URL: _database, ...env } = process.env
  const child = spawn(process.execPath, [MAIN, ...words], { stdio: ['ignore', 'pipe', 'pipe'], env })
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const [status, stdout, stderr] = await Promise.all([exited, text(child.stdout), text(child.stderr)])
  return { status, stdout, stderr }
}
