import { readFile } from 'node:fs/promises'
import { systemErrorCode } from '../../errors.ts'

/** Another process, known by its number and, where the system tells, by when it began: numbers are used again. */
export class ProcessWatch {
  readonly #pid: number
  readonly #begun: string | undefined

  private constructor(pid: number, begun: string | undefined) {
    this.#pid = pid
    this.#begun = begun
  }

  static async of(pid: number): Promise<ProcessWatch> {
    return new ProcessWatch(pid, (await readState(pid))?.begun)
  }

  /** Whether it still runs. One that has ended, and that nobody has asked for its status, does not. */
  async runs(): Promise<boolean> {
    try {
      process.kill(this.#pid, 0)
    } catch (error) {
      if (systemErrorCode(error) !== 'EPERM') return false
    }
    const state = await readState(this.#pid)
    if (state === undefined) return this.#begun === undefined
    return state.begun === this.#begun && state.state !== 'Z' && state.state !== 'X'
  }
}

/** `/proc/<pid>/stat`: the number, the name in parentheses, the state, and 19 fields on the time it began. Only on Linux. */
async function readState(pid: number): Promise<{ state: string; begun: string } | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { state: fields[0] ?? '', begun: fields[19] ?? '' }
  } catch {
    // No such system, or no such process any more.
    return undefined
  }
}
