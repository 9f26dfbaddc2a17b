import { createInterface, type Interface } from 'node:readline/promises'
import { Failure } from '../../errors.ts'

const TRIES_MAX = 5

/** One thing that set-up has to know. */
export interface Question {
  /** What answers it on the command line: `--system <name>`. */
  readonly flag: string
  readonly text: string
  /** What Enter accepts, and `--yes` takes. */
  readonly proposal: string | undefined
  /** What the command line said. */
  readonly given: string | undefined
  /** What is wrong with an answer; undefined when nothing is. */
  readonly problem?: (answer: string) => string | undefined | Promise<string | undefined>
}

/** Asks on the terminal, or takes what the command line says. Close it before anything else reads from the terminal. */
export class Dialogue implements Disposable {
  readonly #yes: boolean
  readonly #signal: AbortSignal
  #lines: { readonly reader: Interface; readonly iterator: AsyncIterator<string> } | undefined

  constructor(options: { readonly yes: boolean; readonly signal: AbortSignal }) {
    this.#yes = options.yes
    this.#signal = options.signal
  }

  /** Whether somebody is there to answer. */
  get isTerminal(): boolean {
    return !this.#yes && process.stdin.isTTY === true && process.stderr.isTTY === true
  }

  /** For people, where there are any: goes to standard error. */
  show(text: string): void {
    process.stderr.write(`${text}\n`)
  }

  /** The answer. Throws ARGUMENTS_INVALID, naming the flag, when the command line gives none and nobody can be asked. */
  async ask(question: Question): Promise<string> {
    const { flag, given, proposal } = question
    if (given !== undefined) return await this.#checked(question, given)
    if (this.#yes && proposal !== undefined) return await this.#checked(question, proposal)
    if (!this.isTerminal) {
      throw new Failure(
        'ARGUMENTS_INVALID',
        `${question.text}? The command line does not say, and there is no terminal to ask at`,
        {
          hint: `add ${flag}${proposal === undefined ? '' : `, or --yes for "${proposal}"`}`,
        },
      )
    }
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      const answer = (await this.#read(`${question.text}${proposal === undefined ? '' : ` [${proposal}]`}: `)) || (proposal ?? '')
      const problem = answer === '' ? 'an answer is needed' : await question.problem?.(answer)
      if (problem === undefined) return answer
      this.show(`  ${problem}`)
    }
    throw new Failure('ARGUMENTS_INVALID', `${question.text}? ${TRIES_MAX} answers were none`, { hint: `add ${flag}` })
  }

  /** Yes or no. `given` is what the command line says; `--yes` takes the proposal. */
  async confirm(question: { text: string; flag: string; proposal: boolean; given?: boolean | undefined }): Promise<boolean> {
    const { text, flag, proposal } = question
    if (question.given !== undefined) return question.given
    if (this.#yes) return proposal
    const given = undefined
    const problem = (answer: string) => (/^(y|yes|n|no)$/i.test(answer) ? undefined : 'yes or no')
    return /^y/i.test(await this.ask({ flag, text, proposal: proposal ? 'yes' : 'no', given, problem }))
  }

  [Symbol.dispose](): void {
    // What is closed reads no more, and keeps the process from nothing.
    this.#lines?.reader.close()
    this.#lines = undefined
  }

  async #checked(question: Question, answer: string): Promise<string> {
    const problem = await question.problem?.(answer)
    if (problem === undefined) return answer
    throw new Failure('ARGUMENTS_INVALID', `${question.text}: "${answer}" will not do: ${problem}`, {
      hint: `add ${question.flag}`,
    })
  }

  /** A line, without what surrounds it. The terminal itself edits and echoes it: Ctrl-C stays a signal. */
  async #read(prompt: string): Promise<string> {
    this.#signal.throwIfAborted()
    process.stderr.write(prompt)
    const reader = this.#lines?.reader ?? createInterface({ input: process.stdin, terminal: false })
    this.#lines ??= { reader, iterator: reader[Symbol.asyncIterator]() }
    const aborted = Promise.withResolvers<never>()
    const abort = () => aborted.reject(this.#signal.reason as Error)
    this.#signal.addEventListener('abort', abort, { once: true })
    try {
      const { value, done } = await Promise.race([this.#lines.iterator.next(), aborted.promise])
      if (done !== true) return value.trim()
    } finally {
      this.#signal.removeEventListener('abort', abort)
    }
    throw new Failure('ARGUMENTS_INVALID', 'the terminal was closed before all was answered', { hint: 'run it again' })
  }
}
