import type { RestorePreview } from '../protect/postgres/restore-preview.ts'
import { formatBytes, formatDuration, formatFields, formatTime } from './output.ts'

/** Characters of a setting's value. */
const SETTING_SHOWN = 80

/** A preview as a person reads it. */
export function formatPreview(component: string, preview: RestorePreview): string {
  const { backup, wal, directory, installation } = preview
  const programs =
    installation === null ? 'none of this major version' : `${installation.version} in ${installation.binDirectory}`
  const fields = [
    ['would restore', `"${component}" from ${backup.type} backup ${backup.id} of ${formatTime(backup.stopTime)}`],
    ['target', `${preview.target}, on timeline ${preview.timeline}, then ${preview.action}`],
    ['directory', `${directory.path} (${directory.state})`],
    ...(preview.safetyCopy === null
      ? []
      : [['safety copy', `${formatBytes(preview.safetyCopy.bytes)} to ${preview.safetyCopy.path} first`] as const]),
    ...preview.tablespaces.map(
      ({ oid, source, path, state }) =>
        [`tablespace ${oid}`, source === path ? `${path} (${state})` : `${path} (${state}; was ${source})`] as const,
    ),
    [
      'write',
      `${formatBytes(preview.bytesToWrite)} in ${preview.filesToWrite} files; ${formatBytes(preview.bytesFree)} are free`,
    ],
    ['replay', `${formatBytes(wal.bytes)} of WAL in ${wal.segments} segments, from ${wal.fromLsn} to ${wal.endLsn}`],
    ['last commit', wal.lastCommit === null ? 'not known' : formatTime(wal.lastCommit)],
    ...lossFields(preview),
    ['programs', programs],
  ] as const
  const settings = Object.entries(preview.settings).map(([name, value]) => `  ${name} = '${shortened(value)}'`)
  return [
    formatFields(fields),
    ...list('Settings that are overridden:', settings),
    ...list(
      'This host differs from the one that was backed up:',
      preview.differences.map((each) => `  ${each.what}: ${each.backup} there, ${each.here} here (${each.consequence})`),
    ),
    ...list('Note:', indent(preview.notices)),
    ...list('In the way:', indent(preview.problems)),
    '',
    preview.possible
      ? 'Nothing was touched. Without --preview the restore begins.'
      : 'Nothing was touched. The restore would be refused.',
  ].join('\n')
}

function lossFields({ loss }: RestorePreview): (readonly [string, string])[] {
  const fields: (readonly [string, string])[] = []
  if (loss.acknowledgedLsn !== null && loss.bytesNotReplayed !== null) {
    const rest =
      loss.bytesNotReplayed === 0 ? 'all of it is replayed' : `${formatBytes(loss.bytesNotReplayed)} of it are not replayed`
    fields.push(['acknowledged', `up to ${loss.acknowledgedLsn}: ${rest}`])
  }
  if (loss.secondsBeforeTarget !== null) {
    fields.push(['quiet', `${formatDuration(1000 * loss.secondsBeforeTarget)} between the last commit and the target`])
  }
  for (const { timeline, bytes, acknowledgedLsn } of loss.spool) {
    const what = `${formatBytes(bytes)} of WAL of timeline ${timeline} in this host's spool`
    fields.push(['spool', `${what}, acknowledged up to ${acknowledgedLsn}, would be published`])
  }
  for (const { directory, timeline, bytes, endLsn } of loss.localWal) {
    fields.push([
      'local WAL',
      `${formatBytes(bytes)} of timeline ${timeline} that only ${directory} has, up to ${endLsn}, would be published`,
    ])
  }
  return fields
}

function list(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ['', title, ...lines]
}

function indent(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`)
}

/** The restore_command alone would fill a screen. */
function shortened(value: string): string {
  return value.length <= SETTING_SHOWN
    ? value
    : `${value.slice(0, SETTING_SHOWN)} ... (${value.length} characters; --json has all)`
}
