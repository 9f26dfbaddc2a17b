import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { ReceiverLease } from '../catalog/receiver-leases.ts'
import { systemErrorCode } from '../errors.ts'
import { replaceFile } from '../protect/postgres/durable-file.ts'
import { componentKey } from './component-key.ts'

const FILE = 'receivers.json'

const schema = z.array(z.object({ system: z.string(), component: z.string() }))

/** What this node received when the store was last asked, in a file of its state: for a start at which nobody can be asked. */
export class ReceiverMemory {
  readonly #state: string
  #kept: string | undefined

  constructor(state: string) {
    this.#state = state
  }

  /** Nothing where there is no file, or none that can be read. */
  async read(): Promise<readonly ReceiverLease[]> {
    const text = await readFile(join(this.#state, FILE), 'utf8').catch((error: unknown) => {
      if (systemErrorCode(error) === undefined) throw error
      return ''
    })
    try {
      return schema.parse(JSON.parse(text))
    } catch {
      // Then only what needs no memory is received until the store is there.
      return []
    }
  }

  /** Durable when this resolves; does nothing when it is the same as before. */
  async keep(leases: readonly ReceiverLease[]): Promise<void> {
    const sorted = leases.map(({ system, component }) => ({ system, component }))
    const text = JSON.stringify(
      sorted.toSorted((left, right) =>
        componentKey(left.system, left.component).localeCompare(componentKey(right.system, right.component)),
      ),
    )
    if (text === this.#kept) return
    await replaceFile(join(this.#state, FILE), text)
    this.#kept = text
  }
}
