import { Option, type Command } from 'commander'
import { readBaseline, writeBaseline } from '../check/baseline.ts'
import { runChecks, type Report } from '../check/run.ts'
import type { FilesWanted, Verdict } from '../check/verdict.ts'
import { findPlace, type Place } from './options.ts'

interface CheckCommandOptions extends Place {
  readonly baseline?: string
  readonly writeBaseline?: string
  readonly json: boolean
  readonly only?: readonly string[]
  readonly files: FilesWanted
}

export function register(program: Command): void {
  program
    .command('check')
    .description('prove that this hospital is whole, or name what is not; changes nothing')
    .option('--baseline <file>', 'hold it against a baseline')
    .option('--write-baseline <file>', 'write a baseline of what is there now')
    .option('--only <names...>', 'these checks alone')
    .addOption(new Option('--files <which>', 'which documents to read').choices(['none', 'sample', 'all']).default('all'))
    .option('--json', 'print one JSON object', false)
    .action(async (_options: object, command: Command) => check(command.optsWithGlobals<CheckCommandOptions>()))
}

/** Exit status: 0 when nothing is wrong; 1 when something is, or when a check that was asked for by name could not be proven; 2 when it could not run. */
async function check(options: CheckCommandOptions): Promise<void> {
  const before = options.baseline === undefined ? undefined : await readBaseline(options.baseline)
  await using place = await findPlace(options)
  const { report, baseline } = await runChecks({
    connectionString: place.connectionString,
    filesDirectory: place.filesDirectory,
    files: options.files,
    takesBaseline: options.writeBaseline !== undefined,
    ...(before === undefined ? {} : { baseline: before }),
    ...(options.only === undefined ? {} : { only: options.only }),
  })
  process.stdout.write(options.json ? `${JSON.stringify(report, undefined, 2)}\n` : printed(report))
  if (!report.passed) process.exitCode = 1
  if (options.writeBaseline === undefined || baseline === undefined) return
  await writeBaseline(options.writeBaseline, baseline)
  if (!options.json) process.stdout.write(`the baseline is "${options.writeBaseline}"\n`)
}

export function printed({ passed, position, lsn, checks }: Report): string {
  const lines = checks.flatMap((each) => [lineOf(each), ...findingsOf(each)])
  const failed = checks.filter(({ verdict }) => verdict === 'failed')
  const unproven = checks.filter(({ verdict }) => verdict === 'not proven')
  const verdict = [
    `${checks.length - failed.length - unproven.length} passed`,
    ...(failed.length > 0 ? [`${failed.length} failed (${failed.map(({ name }) => name).join(', ')})`] : []),
    ...(unproven.length > 0 ? [`${unproven.length} not proven (${unproven.map(({ name }) => name).join(', ')})`] : []),
  ].join(', ')
  return `${lines.join('\n')}\n\n${passed ? 'good' : 'NOT good'}: ${verdict}; at position ${position}, ${lsn}\n`
}

function lineOf({ name, verdict, expected, found, durationMs }: Verdict): string {
  const said = verdict === 'not proven' ? `${expected}${found === '' ? '' : `; ${found}`}` : found
  return `${name.padEnd(14)}${verdict.padEnd(12)}${`${durationMs} ms`.padStart(10)}  ${said}`
}

function findingsOf({ verdict, expected, findings, total }: Verdict): string[] {
  if (verdict !== 'failed') return []
  return [
    `    expected: ${expected}`,
    ...findings.map(({ row, problem }) => `    ${row} ${problem}`),
    ...(total > findings.length ? [`    and ${total - findings.length} more`] : []),
  ]
}
