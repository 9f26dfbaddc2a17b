import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../../src/clock.ts'
import { loadConfiguration } from '../../src/config/configuration.ts'
import { configuredComponent, openConfigured } from '../../src/config/open.ts'
import { Failure } from '../../src/errors.ts'
import { restorePostgres } from '../../src/protect/postgres/restore.ts'

// Restores onto a tmpfs of its own that has too few inodes. Run in a mount namespace: unshare --mount ... restore-on-full-disk.ts <JSON>
// It prints a FullDiskRestore.

export interface FullDiskRestore {
  /** Of the Failure; null when it was none, or when the restore succeeded. */
  readonly code: string | null
  readonly message: string
  /** Whether there is a pg_control. */
  readonly startable: boolean
}

interface Options {
  readonly configPath: string
  readonly mountPoint: string
  /** So many, or just too few for the last files that a restore writes. */
  readonly inodes: number | 'all but a few'
}

const { configPath, mountPoint, inodes } = JSON.parse(process.argv[2]!) as Options
const configuration = await loadConfiguration(configPath)
const repository = await openConfigured(configuration)
const to = join(mountPoint, 'restored')

const needed = inodes === 'all but a few' ? await countInodes() : undefined
const result = await restoreOnto(needed === undefined ? Number(inodes) : needed - 6)
process.stdout.write(JSON.stringify(result))

async function restoreOnto(limit: number): Promise<FullDiskRestore> {
  // Room enough: it is files that do not fit.
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=1g,nr_inodes=${limit}`, 'none', mountPoint])
  try {
    await restore()
    return { code: null, message: 'the restore succeeded', startable: true }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    const startable = existsSync(join(to, 'global/pg_control'))
    return { code: error instanceof Failure ? error.code : null, message, startable }
  } finally {
    execFileSync('umount', [mountPoint])
  }
}

/** What a whole restore takes. */
async function countInodes(): Promise<number> {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1g', 'none', mountPoint])
  await restore()
  const { files, ffree } = statfsSync(mountPoint)
  if (readdirSync(mountPoint).length !== 1) throw new Error('expected that only the restored directory is there')
  execFileSync('umount', [mountPoint])
  return files - ffree
}

async function restore(): Promise<void> {
  await restorePostgres({
    repository,
    component: configuredComponent(configuration, 'his-db'),
    to,
    target: { kind: 'latest' },
    stateDirectory: configuration.state,
    configPath,
    clock: systemClock,
    signal: new AbortController().signal,
  })
}
