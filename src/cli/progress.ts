import type { Clock } from '../clock.ts'
import { formatBytes, formatDuration } from './output.ts'

/** How far long work has come. `bytesTotal` 0: not known. */
export interface ProgressReport {
  readonly phase: string
  readonly bytesDone: number
  readonly bytesTotal: number
}

interface Terminal {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

const LIVE_EVERY_MS = 200
const LINE_EVERY_MS = 5000
const DOCUMENT_EVERY_MS = 500
/** The rate is over this last stretch of time: the beginning of a backup says nothing about its end. */
const RATE_OVER_MS = 10_000
const CLEAR_LINE = '\r\u001B[K'

/** Where a verb says how far it is, and what an operator should know meanwhile. */
export interface Progress {
  /** Notes how far the work is. */
  report(report: ProgressReport): void
  /** A line of its own. */
  print(text: string): void
  /** Call it before anything else is printed. */
  clear(): void
}

/** For a program: one JSON document a line, `{"kind":"progress",...}` or `{"kind":"log","text":...}`. */
export class ProgressDocuments implements Progress {
  readonly #output: Pick<Terminal, 'write'>
  readonly #clock: Clock
  #phase = ''
  #shownAtMs = 0

  constructor(output: Pick<Terminal, 'write'>, clock: Clock) {
    this.#output = output
    this.#clock = clock
  }

  report({ phase, bytesDone, bytesTotal }: ProgressReport): void {
    const now = this.#clock.now()
    if (phase === this.#phase && now - this.#shownAtMs < DOCUMENT_EVERY_MS) return
    this.#phase = phase
    this.#shownAtMs = now
    this.#write({ kind: 'progress', phase, bytesDone, bytesTotal })
  }

  print(text: string): void {
    this.#write({ kind: 'log', text })
  }

  clear(): void {
    return undefined
  }

  #write(document: unknown): void {
    this.#output.write(`${JSON.stringify(document)}\n`)
  }
}

/** One line that is drawn again and again on a terminal, and a new line every few seconds where there is none. */
export class ProgressLine implements Progress {
  readonly #terminal: Terminal
  readonly #clock: Clock
  #samples: { atMs: number; bytes: number }[] = []
  #phase = ''
  #shownAtMs = 0
  #live = false

  constructor(terminal: Terminal, clock: Clock) {
    this.#terminal = terminal
    this.#clock = clock
  }

  /** Notes how far the work is, and shows it when it is time to. */
  report(report: ProgressReport): void {
    const now = this.#clock.now()
    if (report.phase !== this.#phase) {
      this.#phase = report.phase
      this.#samples = []
      if (this.#terminal.isTTY !== true) this.#shownAtMs = now
    }
    this.#samples.push({ atMs: now, bytes: report.bytesDone })
    // The last of the old ones stays: the rate is measured from it.
    while (this.#samples.length > 2 && this.#samples[1]!.atMs < now - RATE_OVER_MS) this.#samples.shift()
    const every = this.#terminal.isTTY === true ? LIVE_EVERY_MS : LINE_EVERY_MS
    if (now - this.#shownAtMs < every) return
    this.#shownAtMs = now
    this.#show(this.#text(report))
  }

  /** Prints a line of its own, above the live one. */
  print(text: string): void {
    this.clear()
    this.#terminal.write(`${text}\n`)
  }

  /** Takes the live line away; call it before anything else is printed. */
  clear(): void {
    if (this.#live) this.#terminal.write(CLEAR_LINE)
    this.#live = false
  }

  #show(text: string): void {
    if (this.#terminal.isTTY !== true) {
      this.#terminal.write(`${text}\n`)
      return
    }
    this.#terminal.write(`${CLEAR_LINE}${text.slice(0, (this.#terminal.columns ?? 80) - 1)}`)
    this.#live = true
  }

  #text(report: ProgressReport): string {
    const { phase, bytesDone, bytesTotal } = report
    const rate = this.#bytesPerSecond()
    const parts = [bytesTotal > 0 ? `${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}` : formatBytes(bytesDone)]
    if (bytesTotal > 0) parts.push(`${Math.floor((100 * bytesDone) / bytesTotal)} %`)
    if (rate > 0) parts.push(`${formatBytes(rate)}/s`)
    if (rate > 0 && bytesTotal > bytesDone) parts.push(`${formatDuration((1000 * (bytesTotal - bytesDone)) / rate)} left`)
    return `${phase}: ${parts.join(', ')}`
  }

  #bytesPerSecond(): number {
    const first = this.#samples[0]
    const last = this.#samples.at(-1)
    if (first === undefined || last === undefined || last.atMs - first.atMs < 200) return 0
    return (1000 * (last.bytes - first.bytes)) / (last.atMs - first.atMs)
  }
}
