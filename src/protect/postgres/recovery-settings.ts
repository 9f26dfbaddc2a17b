import { fileURLToPath } from 'node:url'
import { assert } from '../../assert.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { RECOVERY_DIRECTORY } from './data-directory.ts'
import type { RecoveryPlan, RecoveryTarget } from './recovery-plan.ts'
import { AHEAD_DIRECTORY } from './wal-get.ts'

/** Settings that would make a restored server act on the one that it came from, or wait for it. */
const HARMLESS: Readonly<Record<string, string>> = {
  // With production's value it hangs at its first commit: the standby that it names is not there.
  synchronous_standby_names: '',
  archive_mode: 'off',
  archive_command: '',
  archive_library: '',
  primary_conninfo: '',
  primary_slot_name: '',
}

export interface RecoverySettingsOptions {
  readonly manifest: BackupManifest
  readonly plan: RecoveryPlan
  readonly target: RecoveryTarget
  readonly configPath: string
}

/** Lines for the end of `postgresql.auto.conf`: there they override whatever the cluster had. */
export function recoverySettings(options: RecoverySettingsOptions): string {
  const settings = {
    ...HARMLESS,
    restore_command: restoreCommand(options.configPath),
    recovery_target_timeline: String(options.plan.timeline),
    recovery_target_action: 'promote',
    ...targetSettings(options),
  }
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${quoteSetting(value)}'`)
  return [
    '',
    `# Written by Resus for the recovery of backup ${options.manifest.id}; it can be removed when that has ended.`,
    ...lines,
    '',
  ].join('\n')
}

/** Every way of asking for a target is set, so that none of the cluster's own is left over. */
function targetSettings({ target }: RecoverySettingsOptions): Record<string, string> {
  const none = {
    recovery_target: '',
    recovery_target_lsn: '',
    recovery_target_name: '',
    recovery_target_time: '',
    recovery_target_xid: '',
  }
  switch (target.kind) {
    case 'latest':
      return none
    case 'backup':
      return { ...none, recovery_target: 'immediate' }
    case 'time':
      return { ...none, recovery_target_time: new Date(target.timeMs).toISOString().replace('T', ' ').replace('Z', '+00') }
    case 'lsn':
      return { ...none, ...lsnTarget(target.lsn) }
    default:
      return target satisfies never
  }
}

function lsnTarget(lsn: bigint): Record<string, string> {
  return { recovery_target_lsn: `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}` }
}

/**
 * The shell command that PostgreSQL runs in the data directory for each WAL file. A segment that was fetched ahead is moved in place; else
 * we are started. Only our 90 ("absent, by the plan") becomes 1, on which PostgreSQL ends recovery; whatever else goes wrong, also a shell
 * that cannot start us, becomes 255, on which it stops.
 */
export function restoreCommand(configPath: string): string {
  const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))
  const ahead = `${RECOVERY_DIRECTORY}/${AHEAD_DIRECTORY}/%f`
  const words = [process.execPath, main, 'wal-get', '--config', configPath, '--plan', `${RECOVERY_DIRECTORY}/plan.json`]
  // A percent sign is PostgreSQL's own here.
  const get = words.map((word) => quoteShell(word).replaceAll('%', '%%')).join(' ')
  return (
    `if test -f ${ahead}; then mv ${ahead} "%p" && exit 0; exit 255; fi; ` +
    `${get} %f "%p"; case $? in 0) exit 0;; 90) exit 1;; *) exit 255;; esac`
  )
}

/** An argument as a shell has to read it. */
export function quoteShell(text: string): string {
  assert(!text.includes('\n'), 'a path has no line feed')
  return /^[\w./%=:-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`
}

function quoteSetting(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll("'", "''")
}
