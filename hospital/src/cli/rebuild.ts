import type { Command } from 'commander'
import { compareProjections, replaceProjections } from '../events/rebuild.ts'
import type { Difference, ProjectionComparison } from '../events/shadow.ts'
import { findPlace, type Place } from './options.ts'

interface RebuildCommandOptions extends Place {
  readonly replace: boolean
  readonly json: boolean
}

export function register(program: Command): void {
  program
    .command('rebuild')
    .description('make every projection again from the events, and say where what is there differs')
    .option('--replace', 'put the rebuilt rows in place of those that differ', false)
    .option('--json', 'print one JSON object', false)
    .action(async (_options: object, command: Command) => rebuild(command.optsWithGlobals<RebuildCommandOptions>()))
}

/** Exit status: 0 when all is equal, or was made so; 1 when something differs. */
async function rebuild(options: RebuildCommandOptions): Promise<void> {
  await using place = await findPlace(options)
  const tables = await (options.replace ? replaceProjections : compareProjections)(place)
  const equal = tables.every(({ differing }) => differing === 0)
  const replaced = !equal && options.replace
  process.stdout.write(
    options.json ? `${JSON.stringify({ equal, replaced, tables }, undefined, 2)}\n` : printed(tables, replaced),
  )
  if (!equal && !replaced) process.exitCode = 1
}

function printed(tables: readonly ProjectionComparison[], replaced: boolean): string {
  const lines = tables.flatMap(({ table, rows, rebuilt, differing, differences }) => [
    `${table.padEnd(22)}${String(rows).padStart(12)} rows ${String(rebuilt).padStart(12)} rebuilt   ${differing === 0 ? 'equal' : `${differing} differ`}`,
    ...differences.map((each) => `    ${nameOf(each)}`),
    ...(differing > differences.length ? [`    and ${differing - differences.length} more`] : []),
  ])
  const differing = tables.reduce((sum, table) => sum + table.differing, 0)
  const verdict =
    differing === 0
      ? 'every projection is what the events say'
      : `${differing} ${differing === 1 ? 'row was' : 'rows were'} not what the events say${replaced ? '; now every row is' : ''}`
  return `${lines.join('\n')}\n\n${verdict}\n`
}

function nameOf({ key, kind, columns }: Difference): string {
  const name = Object.values(key).join(' ')
  return kind === 'changed' ? `${name} differs in ${columns.join(', ')}` : `${name} is ${kind}`
}
