import { resolve } from 'node:path'
import { configuredComponent, openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { parseLsn } from '../postgres/lsn.ts'
import type { RecoveryTarget } from '../protect/postgres/recovery-plan.ts'
import { restorePostgres } from '../protect/postgres/restore.ts'
import { formatBytes, formatDuration, formatFields } from './output.ts'
import { parseTargetTime } from './target-time.ts'
import { optionalText, type Given, type Verb } from './verb.ts'

const TARGETS = ['latest', 'targetTime', 'targetLsn', 'backup'] as const

export const run: Verb = async (context, given) => {
  const to = optionalText(given, 'to')
  if (to === undefined) {
    throw new Failure('ARGUMENTS_INVALID', 'restore to where? --to is missing', {
      hint: 'name an empty directory: --to /var/lib/postgresql/restored',
    })
  }
  const target = restoreTarget(given)
  const configuration = await context.configuration()
  const component = configuredComponent(configuration, given.args[0])
  const repository = await openConfigured(configuration, context.warn)
  const report = await restorePostgres({
    repository,
    component,
    to: resolve(to),
    target,
    stateDirectory: configuration.state,
    configPath: configuration.path,
    clock: context.clock,
    signal: context.signal,
    onProgress: (progress) => context.progress.report(progress),
    onNotice: (text) => context.progress.print(text),
  })
  const fields = [
    ['restored', `"${component.name}" from backup ${report.backup}`],
    ['directory', report.directory],
    ['took', formatDuration(1000 * report.seconds)],
    ['written', formatBytes(report.bytesWritten)],
    ['kept', formatBytes(report.bytesKept)],
  ] as const
  const next = `Start it with this command; PostgreSQL then replays WAL up to the target, and opens:\n\n  ${report.startCommand}\n`
  return { json: report, text: `${formatFields(fields)}\n\n${next}` }
}

function restoreTarget(given: Given): RecoveryTarget {
  const named = TARGETS.filter((name) => given.options[name] !== undefined)
  if (named.length > 1) {
    throw new Failure('ARGUMENTS_INVALID', 'a restore has one target, and several were given', {
      hint: 'give one of --latest, --target-time, --target-lsn, --backup',
    })
  }
  const [name] = named
  if (name === 'targetTime') return { kind: 'time', timeMs: parseTargetTime(String(given.options.targetTime)) }
  if (name === 'targetLsn') return { kind: 'lsn', lsn: parseLsn(String(given.options.targetLsn)) }
  if (name === 'backup') return { kind: 'backup', backup: String(given.options.backup) }
  return { kind: 'latest' }
}
