import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { Failure, systemErrorCode } from '../../errors.ts'
import { DISARMED_CONTROL, SAFETY_NOTE } from '../../postgres/relation-file.ts'
import { measureCluster } from './cluster-files.ts'
import { syncDirectory, writeNew } from './durable-file.ts'
import type { RestoreOptions } from './restore.ts'
import { SAFETY_COPY_FILE, takeSafetyCopy, type SafetyCopy } from './safety-copy.ts'
import { freeBytes } from './restore-place.ts'
import { noRoom, safetyCopyPlace } from './safety-place.ts'

/** In the directory itself, until the restore sweeps it away: where the copy is, and the pg_control that was copied. */
const noteSchema = z.object({ copy: z.string(), control: z.string() })

/** The safety copy that a restore over a cluster takes before it changes anything. */
export class Safeguard {
  copy: SafetyCopy | undefined
  readonly #options: RestoreOptions
  readonly #directory: string

  constructor(options: RestoreOptions, directory: string) {
    this.#options = options
    this.#directory = directory
  }

  /** Throws what `takeSafetyCopy` does, and DIRECTORY_IN_USE when the cluster has run meanwhile: the copy is then of no one instant. */
  async take(): Promise<void> {
    const { withoutSafetyCopy, safetyCopy, clock, signal, onNotice, onProgress } = this.#options
    if (withoutSafetyCopy === true) {
      onNotice?.(`no safety copy of what is in "${this.#directory}" is taken, as you said: from here on there is no way back`)
      return
    }
    const before = await this.#control()
    const already = before === undefined ? await this.#takenBefore() : undefined
    if (already !== undefined) {
      onNotice?.(`what was in "${this.#directory}" lies in "${already}" since a restore that was interrupted`)
      return
    }
    const to = safetyCopyPlace(this.#directory, safetyCopy, clock.now())
    onNotice?.(`what is in "${this.#directory}" is copied to "${to}" first`)
    this.copy = await takeSafetyCopy({
      directory: this.#directory,
      to,
      nowMs: clock.now(),
      signal,
      onProgress: (copied) => onProgress?.({ phase: 'safety copy', ...copied }),
    })
    const { unreadable } = this.copy
    if (unreadable.length > 0) {
      const first = unreadable[0]!
      onNotice?.(
        `warning: the disk did not give ${unreadable.length} stretches of files ("${first.path}" at ${first.offset}, ...): they are zero in the safety copy`,
      )
    }
    if (before !== (await this.#control())) throw this.#ranMeanwhile(to)
    if (before !== undefined) await this.#note(to, before)
  }

  async #control(name = 'global/pg_control'): Promise<string | undefined> {
    return await readFile(join(this.#directory, name), 'base64').catch((error: unknown) => {
      // One that cannot be read is there: the cluster may have run.
      return systemErrorCode(error) === 'ENOENT' ? undefined : `not read: ${systemErrorCode(error)}`
    })
  }

  async #note(copy: string, control: string): Promise<void> {
    await writeNew(join(this.#directory, SAFETY_NOTE), `${JSON.stringify({ copy, control })}\n`)
    await syncDirectory(this.#directory)
  }

  /** The cluster cannot have run since, where its pg_control is the one that was copied, under the name that we have given it. */
  async #takenBefore(): Promise<string | undefined> {
    const text = await readFile(join(this.#directory, SAFETY_NOTE), 'utf8').catch(() => '{}')
    const note = noteSchema.safeParse(parseJson(text))
    if (!note.success || note.data.control !== (await this.#control(DISARMED_CONTROL))) return undefined
    const copied = await stat(join(note.data.copy, SAFETY_COPY_FILE)).catch(() => undefined)
    return copied === undefined ? undefined : note.data.copy
  }

  #ranMeanwhile(to: string): Failure {
    return new Failure('DIRECTORY_IN_USE', `the cluster in "${this.#directory}" ran while it was copied to "${to}"`, {
      hint: 'find out who starts it, and end that; then restore again, with a new safety copy',
    })
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What a restore would copy first, and where to; for a preview. Touches nothing. */
export async function previewSafetyCopy(
  options: RestoreOptions,
  directory: string,
): Promise<{ copy: { path: string; bytes: number }; notices: string[] } | undefined> {
  if (options.withoutSafetyCopy === true) return undefined
  const path = safetyCopyPlace(directory, options.safetyCopy, options.clock.now())
  const bytes = await measureCluster(directory)
  const free = await freeBytes(dirname(path))
  const tight = 'unless the file system lets both share their blocks, the restore is refused'
  return { copy: { path, bytes }, notices: free >= bytes ? [] : [`${noRoom(path, free, bytes).message}: ${tight}`] }
}
