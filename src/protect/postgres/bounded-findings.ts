// What checks found that may name rows: it is kept as one object, of a bounded size, whatever a query or a command gives.

/** What a check found that may name rows. */
export interface CheckDetail {
  readonly name: string
  readonly said: string
  readonly findings: unknown
}

const CHECK_BYTES_MAX = 64 * 1024
const ALL_BYTES_MAX = 512 * 1024
/** With what is said of those that were cut. What comes behind this is counted only. */
const LISTED_BYTES_MAX = ALL_BYTES_MAX + 128 * 1024
const TEXT_CHARACTERS_MAX = 4000

/** Takes findings in, as JSON that can be kept. */
export class BoundedFindings {
  readonly #details: CheckDetail[] = []
  #bytes = 0
  #leftOut = 0

  get details(): readonly CheckDetail[] {
    if (this.#leftOut === 0) return this.#details
    const said = `${this.#leftOut} more checks have findings`
    return [...this.#details, { name: 'left out', said, findings: { cut: true } }]
  }

  add({ name, said, findings }: CheckDetail): void {
    const { kept, bytes } = bounded(findings)
    const whole = { name, said, findings: kept }
    if (this.#keep(whole, ALL_BYTES_MAX)) return
    if (!this.#keep({ name, said: '', findings: { cut: true, bytes } }, LISTED_BYTES_MAX)) this.#leftOut += 1
  }

  #keep(detail: CheckDetail, bytesMax: number): boolean {
    const bytes = Buffer.byteLength(JSON.stringify(detail))
    if (this.#bytes + bytes > bytesMax) return false
    this.#bytes += bytes
    this.#details.push(detail)
    return true
  }
}

/** A text of a check: bounded, and of whole characters, which not every text of a command is. */
export function readable(text: string): string {
  return (text.length > TEXT_CHARACTERS_MAX ? `${text.slice(0, TEXT_CHARACTERS_MAX)}…` : text).toWellFormed()
}

function bounded(findings: unknown): { kept: unknown; bytes: number } {
  let bytes = 0
  try {
    const text = JSON.stringify(wellFormed(findings)) ?? 'null'
    bytes = Buffer.byteLength(text)
    if (bytes <= CHECK_BYTES_MAX) return { kept: JSON.parse(text) as unknown, bytes }
  } catch (error) {
    // Nested deeper than the stack, or no JSON at all.
    if (!(error instanceof RangeError || error instanceof TypeError)) throw error
  }
  return { kept: { cut: true, bytes }, bytes }
}

/** Half of a pair of UTF-16 has no place in UTF-8. */
function wellFormed(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed()
  if (Array.isArray(value)) return value.map(wellFormed)
  if (typeof value !== 'object' || value === null || Object.hasOwn(value, 'toJSON') || value instanceof Date) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key.toWellFormed(), wellFormed(each)]))
}
