/** A value that must never be printed: every way of turning it into text gives `[secret]`. Only `reveal()` gives the bytes. */
export class Secret {
  readonly #bytes: Buffer

  constructor(bytes: Buffer | string) {
    this.#bytes = Buffer.from(bytes)
  }

  /** The bytes themselves. Call it only where they are used, and keep the result out of any object that is logged. */
  reveal(): Buffer {
    return this.#bytes
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[secret]'
  }
}
