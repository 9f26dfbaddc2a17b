import { resolve } from 'node:path'
import { configuredComponent, openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { restorePostgres, type RestoreOptions, type RestoreReport } from '../protect/postgres/restore.ts'
import { previewRestore } from '../protect/postgres/restore-preview.ts'
import { clear, deedOptions } from './clearance.ts'
import { notingDamage } from './keep-verdict.ts'
import { formatBytes, formatDuration, formatFields } from './output.ts'
import { formatPreview } from './restore-preview.ts'
import { restoreRequest } from './restore-request.ts'
import { optionalText, type Answer, type Verb } from './verb.ts'

export const run: Verb = async (context, given) => {
  const to = optionalText(given, 'to')
  if (to === undefined) {
    throw new Failure('ARGUMENTS_INVALID', 'restore to where? --to is missing', {
      hint: 'name an empty directory: --to /var/lib/postgresql/restored',
    })
  }
  const { preview, ...request } = restoreRequest(given)
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, given.args[0])
  const repository = await openConfigured(configuration, context.warn)
  const options: RestoreOptions = {
    ...request,
    repository,
    component,
    to: resolve(to),
    stateDirectory: configuration.state,
    configPath: configuration.path,
    clock: context.clock,
    signal: context.signal,
    onProgress: (progress) => context.progress.report(progress),
    onNotice: (text) => context.progress.print(text),
  }
  if (preview) {
    const previewed = await previewRestore(options)
    return { json: previewed, text: formatPreview(component.name, previewed), exitStatus: previewed.possible ? 0 : 1 }
  }
  await clear(context, given, repository, {
    operation: 'restore',
    parameters: { verb: 'restore', component: component.name, to: options.to, options: deedOptions(given) },
    isNewPlace: options.delta !== true,
  })
  const restore = async (onDamagedPack: (pack: string) => void) => restorePostgres({ ...options, onDamagedPack })
  return formatReport(component.name, await notingDamage(context, repository, restore))
}

function formatReport(component: string, report: RestoreReport): Answer {
  const moved = report.tablespaces.filter(({ source, path }) => source !== path)
  const fields = [
    ['restored', `"${component}" from backup ${report.backup}`],
    ['directory', report.directory],
    ...moved.map(({ oid, source, path }) => [`tablespace ${oid}`, `${path} (was ${source})`] as const),
    ['took', formatDuration(1000 * report.seconds)],
    ['written', formatBytes(report.bytesWritten)],
    ['kept', formatBytes(report.bytesKept)],
    ...(report.safetyCopy === null
      ? []
      : [['safety copy', `${report.safetyCopy.path}, of what was there: remove it by hand`] as const]),
    ...lossField(report),
  ] as const
  return { json: report, text: `${formatFields(fields)}\n\n${nextStep(report)}` }
}

function lossField({ acknowledgedLsn, bytesLost }: RestoreReport): (readonly [string, string])[] {
  if (acknowledgedLsn === null || bytesLost === null || bytesLost === 0) return []
  return [['LOST', `at least ${formatBytes(bytesLost)} of WAL that was acknowledged, up to ${acknowledgedLsn}`]]
}

function nextStep({ action, startCommand }: RestoreReport): string {
  const start = `Start it with this command; PostgreSQL then replays WAL up to the target, and`
  switch (action) {
    case 'promote':
      return `${start} opens:\n\n  ${startCommand}\n`
    case 'pause':
      return `${start} waits there, readable. "select pg_wal_replay_resume()" opens it:\n\n  ${startCommand}\n`
    case 'shutdown':
      return (
        `${start} shuts down (pg_ctl then says that it could not start):\n\n  ${startCommand}\n\n` +
        `To open it after that:\n\n  ${startCommand.replace(/ start$/, " -o '-c recovery_target_action=promote' start")}\n`
      )
    default:
      return action satisfies never
  }
}
