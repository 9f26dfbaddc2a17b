import { resolve } from 'node:path'
import { configuredComponent, openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import {
  DUMP_FORMATS,
  dumpPostgres,
  type DumpFormat,
  type DumpOptions,
  type DumpReport,
  type DumpSubject,
} from '../protect/postgres/dump.ts'
import { clear, deedOptions } from './clearance.ts'
import { notingDamage } from './keep-verdict.ts'
import { formatBytes, formatDuration, formatFields, formatTime } from './output.ts'
import { restoreRequest } from './restore-request.ts'
import { copyContext } from './scratch-place.ts'
import { optionalText, type Given, type Verb } from './verb.ts'

const LEVEL_DEFAULT = '6'

export const run: Verb = async (context, given) => {
  const to = optionalText(given, 'to')
  if (to === undefined) throw invalid('dump into which file? --to is missing', 'name one that does not exist: --to his.dump')
  const { target, timeline, from } = restoreRequest(given)
  const [subject, format, level] = [dumpSubject(given), dumpFormat(given), dumpLevel(given)]
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, given.args[0])
  const repository = await openConfigured(configuration, context.warn)
  const options: DumpOptions = {
    repository,
    component,
    target,
    ...(timeline === undefined ? {} : { timeline }),
    ...(from === undefined ? {} : { from }),
    subject,
    format,
    level,
    to: resolve(to),
    ...(await copyContext(context, given, { configuration, component })),
  }
  await clear(context, given, repository, {
    operation: 'restore',
    parameters: { verb: 'dump', component: component.name, to: options.to, options: deedOptions(given) },
    isNewPlace: true,
  })
  const report = await notingDamage(context, repository, async (onDamagedPack) => dumpPostgres({ ...options, onDamagedPack }))
  return { json: report, text: describe(report) }
}

function dumpSubject(given: Given): DumpSubject {
  const database = optionalText(given, 'database')
  const [schemas, tables] = [list(given.options.schema), list(given.options.table)]
  if (given.options.globals !== true)
    return { kind: 'database', ...(database === undefined ? {} : { database }), schemas, tables }
  if (database === undefined && schemas.length === 0 && tables.length === 0) return { kind: 'globals' }
  throw invalid('--globals is of the whole cluster, and something of a database was given', 'make two dumps')
}

function dumpFormat(given: Given): DumpFormat {
  const text = optionalText(given, 'format') ?? (given.options.globals === true ? 'plain' : 'custom')
  const format = DUMP_FORMATS.find((each) => each === text)
  if (format === undefined)
    throw invalid(`--format is "${text}", wanted ${DUMP_FORMATS.join(' or ')}`, 'without it: custom, for pg_restore')
  if (given.options.globals === true && format !== 'plain') throw invalid('--globals is always plain SQL', 'leave --format out')
  return format
}

function dumpLevel(given: Given): number {
  const text = optionalText(given, 'compress') ?? LEVEL_DEFAULT
  if (/^[0-9]$/.test(text)) return Number(text)
  throw invalid(`--compress is "${text}", wanted 0 to 9`, `without it: ${LEVEL_DEFAULT}`)
}

function describe(report: DumpReport): string {
  const { reached } = report
  const time = reached.time === null ? '' : `, last transaction ${formatTime(reached.time)}`
  const how =
    report.format === 'custom'
      ? `pg_restore --dbname=<new database> ${report.file}`
      : `gunzip -c ${report.file} | psql -v ON_ERROR_STOP=1 --dbname=${report.database === null ? 'postgres' : '<new database>'}`
  const fields = [
    [
      'dumped',
      `${report.database === null ? 'roles and tablespaces' : `database "${report.database}"`} of "${report.component}"`,
    ],
    ['from', `backup ${report.backup}, recovered to ${report.target}`],
    ['reached', `${reached.lsn}${time}`],
    ['file', report.file],
    ['size', formatBytes(report.bytes)],
    ['sha256', report.sha256],
    ['took', formatDuration(1000 * report.seconds)],
  ] as const
  return `${formatFields(fields)}\n\nTo load it:\n\n  ${how}\n`
}

function list(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : []
}

function invalid(message: string, hint: string): Failure {
  return new Failure('ARGUMENTS_INVALID', message, { hint })
}
