import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isStoreAway } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { loadSystems, type Systems } from '../config/systems.ts'
import { Failure } from '../errors.ts'

const LOOK_MS = 2_000

export interface ConfigurationWatchOptions {
  readonly configPath: string
  /** Of the files as they are in force: taken before they were read. Undefined where they are to be taken again. */
  readonly fingerprint: string | undefined
  /** Why these files are not in force, or not kept, if they are not. */
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
        seen = (await this.#change()) ? now : undefined
      }
      changed = now
    }
  }

  /** False when it has to be tried again: the files are right, and what kept them from being taken may pass. */
  async #change(): Promise<boolean> {
    const { configPath, report, take } = this.#options
    let systems: Systems
    try {
      systems = await loadSystems(configPath)
    } catch (error) {
      this.#refuse(error, 'a change of the configuration was refused, the old one stays in force')
      return true
    }
    try {
      await take(systems)
    } catch (error) {
      if (!isStoreAway(error)) this.#refuse(error, 'a change of the configuration cannot be taken yet')
      return false
    }
    this.refused = null
    report('the configuration has changed and is in force')
    return true
  }

  /** Says so once. Throws what is no refusal. */
  #refuse(error: unknown, text: string): void {
    const { clock, report } = this.#options
    if (!(error instanceof Failure)) throw error
    if (this.refused?.message === error.message) return
    this.refused = { message: error.message, at: new Date(clock.now()).toISOString() }
    report(`${text}: ${error.message}`)
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
