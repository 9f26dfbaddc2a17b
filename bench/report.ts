import type { Samples } from './side-by-side.ts'

/** A ratio of DESIGN.md's "Speed", by the medians of one run. Above 1 is better than the other, where it is not said otherwise. */
export interface Ratio {
  readonly name: string
  readonly value: number
  /** What the design asks for, as it says it. */
  readonly target: string
}

/** Every figure that was measured, one number for each time, by what it is of. Its name ends with its unit. */
export type Figures = Readonly<Record<string, readonly number[]>>

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((left, right) => left - right)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median, min: sorted[0]!, max: sorted.at(-1)! }
}

export function ratiosOf(samples: Samples): Ratio[] {
  const of = (name: string) => spreadOf(samples.figures[name]!).median
  const full = of('Resus full seconds')
  const rate = samples.clusterBytes / full
  const restore = of('Resus restore seconds')
  const stored = of('Resus full stored bytes')
  const added = of('Resus incremental stored bytes')
  return [
    { name: 'full: as fast as pgBackRest zst 1', value: of('pgBackRest zst 1 full seconds') / full, target: '>= 1.5' },
    { name: 'full: as fast as pgBackRest gz 6', value: of('pgBackRest gz 6 full seconds') / full, target: '>= 6' },
    { name: 'full: of the pipeline in memory', value: rate / of('machine pipeline bytes/s'), target: '>= 0.85' },
    { name: 'full: size, of pgBackRest zst 1', value: stored / of('pgBackRest zst 1 full stored bytes'), target: '<= 1' },
    {
      name: 'incremental: as fast as pgBackRest zst 1',
      value: of('pgBackRest zst 1 incremental seconds') / of('Resus incremental seconds'),
      target: '>= 4',
    },
    {
      name: 'incremental: size, of the changed pages compressed',
      value: added / of('changed pages compressed bytes'),
      target: '<= 1.3',
    },
    {
      name: 'incremental: size, of pgBackRest zst 1',
      value: added / of('pgBackRest zst 1 incremental stored bytes'),
      target: '-',
    },
    { name: 'restore: as fast as pgBackRest zst 1', value: of('pgBackRest zst 1 restore seconds') / restore, target: '>= 1.5' },
    { name: 'restore: as fast as a sequential write', value: of('machine write seconds') / restore, target: 'or >= 0.8' },
  ]
}

/** The tables as Markdown, which a terminal shows well enough. */
export function formatReport(samples: Samples): string {
  return [
    `Cluster of ${megabytes(samples.clusterBytes)}; restored, started and compared: ${samples.compared.join(', ')}.`,
    `Load (processes that want a core) before each round and at the end: ${formatLoads(samples.loads)}.`,
    formatFigures(samples.figures, ratiosOf(samples)),
  ].join('\n\n')
}

/** What was measured, and the ratios. */
export function formatFigures(figures: Figures, ratios: readonly Ratio[]): string {
  const rows = Object.entries(figures).map(([name, values]) => {
    const { median, min, max } = spreadOf(values)
    const [what, format] = describe(name)
    return [what, format(median), values.length === 1 ? '' : `${format(min)} - ${format(max)}`]
  })
  const ratioRows = ratios.map(({ name, value, target }) => [name, value.toFixed(2), target])
  return [table(['measured', 'median', 'min - max'], rows), table(['ratio', 'of the medians', 'wanted'], ratioRows)].join('\n\n')
}

export function formatLoads(loads: readonly number[]): string {
  return loads.map((load) => load.toFixed(1)).join(', ')
}

function describe(name: string): [what: string, format: (value: number) => string] {
  if (name.endsWith(' bytes/s')) return [name.replace(/ bytes\/s$/, ', rate'), (value) => `${megabytes(value)}/s`]
  if (name.endsWith(' CPU seconds')) return [name.replace(/ CPU seconds$/, ', CPU'), (value) => `${value.toFixed(2)} s`]
  if (name.endsWith(' seconds')) return [name.replace(/ seconds$/, ', time'), (value) => `${value.toFixed(2)} s`]
  if (name.endsWith(' bytes')) return [name.replace(/ (\S+) bytes$/, ', $1'), megabytes]
  if (name.includes('share of')) return [name, (value) => `${(100 * value).toFixed(2)} %`]
  return [name, (value) => value.toFixed(value < 10 ? 2 : 0)]
}

function megabytes(bytes: number): string {
  return `${(bytes / 1_000_000).toFixed(bytes < 10_000_000 ? 1 : 0)} MB`
}

/** A table as Markdown; the first column is text, the others are numbers. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]!.length)))
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join(' | ')} |`
  const rule = `| ${widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`
  return [line(head), rule, ...rows.map(line)].join('\n')
}
