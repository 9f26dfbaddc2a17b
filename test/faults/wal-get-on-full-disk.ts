import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

// Calls wal-get with a destination on a tmpfs that is too small for a segment. Run in a mount namespace of its own; prints a FullDiskFetch.

export interface FullDiskFetch {
  readonly status: number
  readonly errors: string
  /** What is left on the small disk. */
  readonly left: readonly string[]
}

const { command, mountPoint, name } = JSON.parse(process.argv[2]!) as { command: string[]; mountPoint: string; name: string }
execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', mountPoint])
let outcome = { status: 0, errors: '' }
try {
  execFileSync(command[0]!, [...command.slice(1), name, join(mountPoint, name)], { stdio: ['ignore', 'ignore', 'pipe'] })
} catch (error) {
  const failed = error as { status: number; stderr: Buffer }
  outcome = { status: failed.status, errors: failed.stderr.toString() }
}
const result: FullDiskFetch = { ...outcome, left: readdirSync(mountPoint) }
execFileSync('umount', [mountPoint])
process.stdout.write(JSON.stringify(result))
