import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isStoreAway } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { loadSystems, type Systems } from '../config/systems.ts'
import { Failure } from '../errors.ts'

const LOOK_MS = 2_000

export interface ConfigurationWatchOptions {
  readonly configPath: string
  /** Of the files as they are in force: taken before they were read. */
  readonly fingerprint: string
  /** Why these files are not in force, if they are not. */
  readonly refused: string | null
  readonly clock: Clock
  readonly report: (text: string) => void
  /** The new configuration is in force from here on. */
  readonly take: (systems: Systems) => Promise<void>
}

/** Takes a change of the configuration without a restart, as a whole; or refuses it with line and reason, and the old one stays in force. */
export class ConfigurationWatch {
  readonly #options: ConfigurationWatchOptions
  /** Why the files as they are now were refused; null when they are in force. */
  refused: { readonly message: string; readonly at: string } | null

  constructor(options: ConfigurationWatchOptions) {
    this.#options = options
    const { refused, clock } = options
    this.refused = refused === null ? null : { message: refused, at: new Date(clock.now()).toISOString() }
  }

  async run(signal: AbortSignal): Promise<void> {
    const { configPath, clock } = this.#options
    let seen = this.#options.fingerprint
    let changed = seen
    while (!signal.aborted) {
      await clock.sleep(LOOK_MS, signal).catch(() => undefined)
      const now = await configurationFingerprint(configPath)
      // Looked at once it stands still: an editor writes in several steps.
      if (now !== seen && now === changed && !signal.aborted) {
        if (await this.#change()) seen = now
      }
      changed = now
    }
  }

  /** False when it has to be tried again. */
  async #change(): Promise<boolean> {
    const { configPath, clock, report, take } = this.#options
    try {
      const systems = await loadSystems(configPath)
      await take(systems)
      this.refused = null
      report('the configuration has changed and is in force')
      return true
    } catch (error) {
      if (isStoreAway(error)) return false
      if (!(error instanceof Failure)) throw error
      this.refused = { message: error.message, at: new Date(clock.now()).toISOString() }
      report(`a change of the configuration was refused, the old one stays in force: ${error.message}`)
      return true
    }
  }
}

/** What changes when a file of the configuration does. */
export async function configurationFingerprint(path: string): Promise<string> {
  const paths = await filesOf(path)
  const parts = await Promise.all(
    paths.map(async (file) => {
      const info = await stat(file, { bigint: true }).catch(() => undefined)
      return `${file} ${info?.ino} ${info?.size} ${info?.mtimeNs}`
    }),
  )
  return parts.join('\n')
}

async function filesOf(path: string): Promise<string[]> {
  const names = await readdir(path).catch(() => undefined)
  return names === undefined ? [path] : names.filter((name) => /\.ya?ml$/.test(name)).map((name) => join(path, name))
}
