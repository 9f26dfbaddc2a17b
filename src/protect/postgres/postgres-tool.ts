import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { toolPath, type Installation } from '../../postgres/installation.ts'
import type { Finding } from './check-list.ts'

const execute = promisify(execFile)
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024
const SHOWN_CHARACTERS = 500

/** Lets one of PostgreSQL's own tools judge: its exit status decides. Not proven where this installation does not have it. */
export async function runPostgresTool(options: {
  installation: Installation
  tool: 'pg_verifybackup' | 'pg_checksums'
  args: readonly string[]
  signal: AbortSignal
}): Promise<Finding> {
  const { installation, tool, args, signal } = options
  const path = toolPath(installation, tool)
  if (path === undefined) return { verdict: 'not proven', found: `PostgreSQL ${installation.major} has no ${tool} here` }
  try {
    const env = { ...process.env, LC_ALL: 'C' }
    await execute(path, args, { signal, env, maxBuffer: OUTPUT_BYTES_MAX })
    return { verdict: 'verified', found: `${tool} ${installation.version} found nothing wrong` }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof Error) || !('stderr' in error) || !('code' in error) || typeof error.code !== 'number') throw error
    const said = `${String(error.stderr)}`.trim().slice(0, SHOWN_CHARACTERS)
    return { verdict: 'failed', found: `${tool} ended with status ${error.code}: ${said}` }
  }
}
