import { Failure } from '../errors.ts'
import { Secret } from '../secret.ts'

const LINE_MAX = 4096
const TRIES_MAX = 3
const ENTER = new Set(['\r', '\n'])
const ERASE = new Set(['\u007F', '\b'])
const ERASE_ALL = '\u0015'
const INTERRUPT = '\u0003'
const END = '\u0004'

/** Asks people on the terminal, what is secret without showing it; on a pipe each answer is a line. Close it: nothing else reads standard input meanwhile. */
export class Prompter implements Disposable {
  readonly #signal: AbortSignal
  #chunks: AsyncIterator<string> | undefined
  /** Read, and not asked for yet. */
  #pending = ''

  constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  get isTerminal(): boolean {
    return process.stdin.isTTY === true
  }

  /** For people: goes to standard error. */
  show(text: string): void {
    process.stderr.write(`${text}\n`)
  }

  /** A line, without what surrounds it. The terminal itself edits and echoes it. Throws ARGUMENTS_INVALID when the input ends. */
  async ask(question: string): Promise<string> {
    process.stderr.write(`${question}: `)
    return (await this.#line()).trim()
  }

  /** A line that is not shown. */
  async askSecret(question: string): Promise<Secret> {
    process.stderr.write(`${question}: `)
    if (!this.isTerminal) return new Secret(await this.#line())
    process.stdin.setRawMode(true)
    try {
      return new Secret(await this.#hiddenLine())
    } finally {
      process.stdin.setRawMode(false)
      process.stderr.write('\n')
    }
  }

  /** Twice: nobody sees what was typed. Throws ARGUMENTS_INVALID. */
  async askNewPassword(): Promise<Secret> {
    for (let tries = 0; tries < (this.isTerminal ? TRIES_MAX : 1); tries += 1) {
      const password = await this.askSecret('a new password, of 12 characters or more')
      const again = await this.askSecret('once more')
      if (password.reveal().equals(again.reveal())) return password
      this.show('  these are two different ones')
    }
    throw new Failure('ARGUMENTS_INVALID', 'the two passwords are different', { hint: 'run it again; nothing was changed' })
  }

  /** Asks for a code of TOTP, and gives it on; at a terminal again when it was wrong. Throws FACTOR_WRONG, and what `use` throws. */
  async withCode<T>(question: string, use: (code: string) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      const code = (await this.ask(question)).replaceAll(' ', '')
      try {
        if (!/^\d{6}$/.test(code)) throw new Failure('FACTOR_WRONG', 'a code has six digits')
        return await use(code)
      } catch (error) {
        const isWrong = error instanceof Failure && error.code === 'FACTOR_WRONG'
        if (!isWrong || !this.isTerminal || tries === TRIES_MAX) throw error
        this.show(`  ${error.message}; each code is good once: wait for the next`)
      }
    }
  }

  [Symbol.dispose](): void {
    // What is closed keeps the process from nothing; an iterator that waits could not be told to end.
    if (this.#chunks !== undefined) process.stdin.destroy()
  }

  async #line(): Promise<string> {
    while (!this.#pending.includes('\n')) {
      const chunk = await this.#chunk()
      if (chunk === undefined) {
        if (this.#pending === '') throw ended()
        return this.#take(this.#pending.length)
      }
      this.#pending += chunk
      if (this.#pending.length > LINE_MAX && !this.#pending.includes('\n')) throw tooLong()
    }
    const line = this.#take(this.#pending.indexOf('\n') + 1)
    return line.replace(/\r?\n$/, '')
  }

  /** The terminal gives each key as it is pressed. */
  async #hiddenLine(): Promise<string> {
    let line = ''
    for (;;) {
      if (this.#pending === '') this.#pending = (await this.#chunk()) ?? END
      const [key = ''] = this.#pending
      this.#take(key.length)
      if (ENTER.has(key)) return line
      if (key === INTERRUPT) throw new Failure('INTERRUPTED', 'interrupted', { hint: 'nothing was changed: run it again' })
      if (key === END) throw ended()
      if (key === ERASE_ALL) line = ''
      else if (ERASE.has(key)) line = line.replace(/.$/su, '')
      else line += key
      if (line.length > LINE_MAX) throw tooLong()
    }
  }

  #take(length: number): string {
    const taken = this.#pending.slice(0, length)
    this.#pending = this.#pending.slice(length)
    return taken
  }

  /** Undefined at the end. */
  async #chunk(): Promise<string | undefined> {
    this.#signal.throwIfAborted()
    process.stdin.setEncoding('utf8')
    this.#chunks ??= process.stdin[Symbol.asyncIterator]() as AsyncIterator<string>
    const aborted = Promise.withResolvers<never>()
    const abort = () => aborted.reject(this.#signal.reason as Error)
    this.#signal.addEventListener('abort', abort, { once: true })
    try {
      const { value, done } = await Promise.race([this.#chunks.next(), aborted.promise])
      return done === true ? undefined : value
    } finally {
      this.#signal.removeEventListener('abort', abort)
    }
  }
}

function ended(): Failure {
  return new Failure('ARGUMENTS_INVALID', 'the input ended before all was answered', {
    hint: 'nothing was changed: run it again',
  })
}

function tooLong(): Failure {
  return new Failure('ARGUMENTS_INVALID', `an answer has at most ${LINE_MAX} characters`)
}
