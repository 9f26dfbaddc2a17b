import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isStoreAway } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { loadSystems, type Systems } from '../config/systems.ts'
import type { Configuration } from '../config/configuration.ts'
import { Failure } from '../errors.ts'
import type { Admitted } from './authority/configuration-gate.ts'

const LOOK_MS = 2_000
const AGAIN_MS = 30_000

export interface ConfigurationWatchOptions {
  readonly configPath: string
  /** Of the files as they are in force: taken before they were read. Undefined where they are to be taken again. */
  readonly fingerprint: string | undefined
  /** Why these files are not in force, or not kept, if they are not. */
  readonly refused: string | null
  readonly clock: Clock
  readonly report: (text: string) => void
  /** What of it may come into force. Throws what the store throws. */
  readonly admit: (systems: readonly Configuration[]) => Promise<Admitted>
  /** The new configuration is in force from here on. */
  readonly take: (systems: Systems) => Promise<void>
}

/** Takes a change of the configuration without a restart, as a whole; or refuses it with line and reason, and the old one stays in force. */
export class ConfigurationWatch {
  readonly #options: ConfigurationWatchOptions
  #isToBeRead = false
  /** When what waits is looked at again: somebody may have decided, or the store be back. */
  #againMs = Infinity
  /** Why the files as they are now were refused; null when they are in force. */
  refused: { readonly message: string; readonly at: string } | null

  constructor(options: ConfigurationWatchOptions) {
    this.#options = options
    const { refused, clock } = options
    this.refused = refused === null ? null : { message: refused, at: new Date(clock.now()).toISOString() }
  }

  /** Looks at the files again, though they are as they were. */
  reload(): void {
    this.#isToBeRead = true
  }

  async run(signal: AbortSignal): Promise<void> {
    const { configPath, clock } = this.#options
    let seen = this.#options.fingerprint
    let changed = seen
    while (!signal.aborted) {
      await clock.sleep(LOOK_MS, signal).catch(() => undefined)
      const now = await configurationFingerprint(configPath)
      // Looked at once it stands still: an editor writes in several steps.
      if ((now !== seen || this.#isToBeRead || clock.now() >= this.#againMs) && now === changed && !signal.aborted) {
        this.#isToBeRead = false
        this.#againMs = Infinity
        const isDone = await this.#change().catch((error: unknown) => {
          // What it asks is ending too.
          if (signal.aborted) return false
          throw error
        })
        seen = isDone ? now : undefined
      }
      changed = now
    }
  }

  /** False when it has to be tried again: the files are right, and what kept them from being taken may pass. */
  async #change(): Promise<boolean> {
    const { configPath, admit, report, take } = this.#options
    let systems: Systems
    let waiting: readonly string[] = []
    try {
      systems = await loadSystems(configPath)
    } catch (error) {
      this.#refuse(error, 'a change of the configuration was refused, the old one stays in force')
      return true
    }
    try {
      const admitted = await admit(systems.systems)
      waiting = admitted.waiting
      await take({ ...systems, systems: [...admitted.systems] })
    } catch (error) {
      // Whatever it is: protection goes on by what is in force, and this is tried again.
      if (!isStoreAway(error)) this.#refuse(asFailure(error), 'a change of the configuration cannot be taken yet')
      return false
    }
    if (waiting.length > 0) {
      this.#againMs = this.#options.clock.now() + AGAIN_MS
      this.#refuse(new Failure('APPROVAL_NEEDED', waiting.join('; ')), 'a change of the configuration waits')
      return true
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

function asFailure(error: unknown): Failure {
  return error instanceof Failure ? error : new Failure('CONFIG_INVALID', String(error), { cause: error })
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
