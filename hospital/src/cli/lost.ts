import type { Command } from 'commander'
import pg from 'pg'
import { findLost, type FacilityLosses, type LostReport } from '../lost/find-lost.ts'
import { findPlace, type Place } from './options.ts'

interface LostOptions extends Place {
  readonly json: boolean
}

const PATIENTS_SHOWN = 5

export function register(program: Command): void {
  program
    .command('lost <file>')
    .description('which writes that the hospital had acknowledged the database no longer has; exit status 1 when there are any')
    .option('--json', 'the whole report as JSON', false)
    .action(async (file: string, _options: object, command: Command) => run(file, command.optsWithGlobals<LostOptions>()))
}

async function run(file: string, options: LostOptions): Promise<void> {
  await using place = await findPlace(options)
  const admin = new pg.Client({ connectionString: place.connectionString, application_name: 'hospital lost' })
  await admin.connect()
  try {
    const report = await findLost(admin, file)
    process.stdout.write(options.json ? `${JSON.stringify(report, undefined, 2)}\n` : textOf(report))
    process.exitCode = report.lost === 0 ? 0 : 1
  } finally {
    await admin.end()
  }
}

function textOf(report: LostReport): string {
  const { acknowledged, lost, replaced, facilities, torn } = report
  const damaged = torn.filter(({ isLast }) => !isLast)
  return [
    ...(torn.some(({ isLast }) => isLast) ? ['the last line of the log was torn by a kill, and counts for nothing'] : []),
    ...(damaged.length === 0 ? [] : [`${damaged.length} lines of the log are damaged, the first is line ${damaged[0]?.number}`]),
    lost === 0
      ? `none lost: the database has all ${acknowledged} acknowledged writes`
      : `${lost} of ${acknowledged} acknowledged writes are lost` +
        (replaced === 0 ? '' : `, ${replaced} of them where another write has the version now`),
    ...facilities.flatMap(facilityLines),
    '',
  ].join('\n')
}

function facilityLines({ facility, lost, from, to, patients }: FacilityLosses): string[] {
  const more = patients.length - PATIENTS_SHOWN
  return [
    `${facility}: ${lost} writes about ${patients.length} patients, recorded from ${from} to ${to}`,
    ...patients
      .slice(0, PATIENTS_SHOWN)
      .map((each) => `  Patient/${each.patient}: ${each.lost}, from ${each.from} to ${each.to}`),
    ...(more > 0 ? [`  and ${more} more patients (see --json)`] : []),
  ]
}
