import { fileURLToPath } from 'node:url'
import { assert } from '../../assert.ts'
import { formatLsn } from '../../postgres/lsn.ts'
import { formatMicros } from '../../postgres/timestamp.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { RECOVERY_DIRECTORY } from './data-directory.ts'
import type { RecoveryPlan } from './recovery-plan.ts'
import type { RecoveryAction, RecoveryTarget } from './recovery-target.ts'
import {
  ABSENT_DIRECTORY,
  AHEAD_DIRECTORY,
  COMING_DIRECTORY,
  ALL_FETCHED_FILE,
  HISTORIES_DIRECTORY,
  LAST_DIRECTORY,
  LOCK_FILE,
  STARTING_FILE,
} from './fetcher-lock.ts'

/** How often, a hundredth of a second apart, the command looks for a promised segment before it fetches it itself. */
const PROMISE_LOOKS = 3000

/** Settings that would make a restored server act on the one that it came from, or wait for it. */
const HARMLESS: Readonly<Record<string, string>> = {
  // With production's value it hangs at its first commit: the standby that it names is not there.
  synchronous_standby_names: '',
  archive_mode: 'off',
  archive_command: '',
  archive_library: '',
  primary_conninfo: '',
  primary_slot_name: '',
  // Commands of a standby: the one removes WAL from the archive that it shares with others, the other may take over an address.
  archive_cleanup_command: '',
  recovery_end_command: '',
  // A standby that was meant to lag would keep its recovery waiting as long.
  recovery_min_apply_delay: '0',
  external_pid_file: '',
}

export interface RecoverySettingsOptions {
  readonly manifest: BackupManifest
  readonly plan: RecoveryPlan
  readonly target: RecoveryTarget
  /** By default, promote. */
  readonly action?: RecoveryAction
  readonly configPath: string
}

/** Lines for the end of `postgresql.auto.conf`: there they override whatever the cluster had. */
export function recoverySettings(options: RecoverySettingsOptions): string {
  const linesOf = (settings: Readonly<Record<string, string>>) =>
    Object.entries(settings).map(([name, value]) => `${name} = '${quoteSetting(value)}'`)
  const commandLine = linesOf(options.manifest.server.commandLine)
  const kept =
    commandLine.length === 0 ? [] : ['', '# Written by Resus: settings that the server had on its command line.', ...commandLine]
  return [
    ...kept,
    '',
    `# Written by Resus for the recovery of backup ${options.manifest.id}; it can be removed when that has ended.`,
    ...linesOf(overriddenSettings(options)),
    '',
  ].join('\n')
}

/** What a restored cluster is told, whatever its own settings are. */
export function overriddenSettings(options: RecoverySettingsOptions): Record<string, string> {
  const { plan, configPath, action = 'promote' } = options
  return {
    ...HARMLESS,
    // Where nobody can ask the server, PostgreSQL turns a pause into a shutdown.
    ...(action === 'pause' ? { hot_standby: 'on' } : {}),
    // Else recovery ends in a PANIC at the first directory in pg_tblspc that is no link.
    ...(options.manifest.inPlaceTablespaces.length > 0 ? { allow_in_place_tablespaces: 'on' } : {}),
    restore_command: restoreCommand(configPath),
    recovery_target_timeline: String(plan.timeline),
    recovery_target_action: action,
    recovery_target_inclusive: isExclusive(options.target) ? 'off' : 'on',
    ...targetSettings(options),
  }
}

function isExclusive(target: RecoveryTarget): boolean {
  return 'exclusive' in target && target.exclusive === true
}

const TARGET_SETTINGS = [
  'recovery_target',
  'recovery_target_lsn',
  'recovery_target_name',
  'recovery_target_time',
  'recovery_target_xid',
]

/**
 * Every way of asking for a target is set, so that none of the cluster's own is left over; the one that is meant comes last, because
 * PostgreSQL takes even an empty one behind it for a second target (guc: assign_recovery_target_*).
 */
function targetSettings({ target }: RecoverySettingsOptions): Record<string, string> {
  const none = Object.fromEntries(TARGET_SETTINGS.map((name) => [name, '']))
  const only = (name: string, value: string) => {
    delete none[name]
    return { ...none, [name]: value }
  }
  switch (target.kind) {
    case 'latest':
      return none
    case 'backup':
      return only('recovery_target', 'immediate')
    case 'time':
      return only('recovery_target_time', formatMicros(target.micros).replace('T', ' ').replace('Z', '+00'))
    case 'lsn':
      return only('recovery_target_lsn', formatLsn(target.lsn))
    case 'xid':
      return only('recovery_target_xid', String(target.xid))
    case 'name':
      return only('recovery_target_name', target.name)
    default:
      return target satisfies never
  }
}

/**
 * The shell command that PostgreSQL runs in the data directory for each WAL file. Unless all was there when recovery began, it sees to it that
 * a fetcher works ahead for as long as the process that runs the command (PostgreSQL's startup process) lives. It waits for a segment that
 * the fetcher has promised, or for one that has only begun, and moves the segment in place; the last is copied, because PostgreSQL asks
 * for it again. What the plan alone answers lies there as a mark, or as a history file.
 * Whatever is not there then, `getCommand` gets.
 */
export function restoreCommand(configPath: string): string {
  const at = (name: string) => `${RECOVERY_DIRECTORY}/${name}`
  // A mark that is there, not one that is missing: only the plan's own word is proof.
  const absent = `if test -e ${at(ABSENT_DIRECTORY)}/%f; then exit 1; fi`
  const history = `*.history) if test -e ${at(HISTORIES_DIRECTORY)}/%f; then cp ${at(HISTORIES_DIRECTORY)}/%f "%p" && exit 0; fi`
  return `${absent}; case %f in ${history};; *) ${takeFetched(at)};; esac; ${getCommand(configPath)}`

  /** Every line of it is only for speed. */
  function takeFetched(file: typeof at): string {
    const fetched = `${file(AHEAD_DIRECTORY)}/%f`
    const last = `${file(LAST_DIRECTORY)}/%f`
    // To be looked for again and again: either of the two.
    const isThere = `{ test -e ${fetched} || test -e ${last}; }`
    const fetch = resusWords('wal-ahead', configPath, ['--while']).join(' ')
    const isWorking = `{ read pid <${file(LOCK_FILE)} && kill -0 "$pid"; } 2>/dev/null`
    // Until it has made its promises, the next calls must not each start another.
    const isStarting = `{ read pid <${file(STARTING_FILE)} && kill -0 "$pid"; } 2>/dev/null`
    const start = `${fetch} "$PPID" $itself %f </dev/null >/dev/null 2>&1 & echo $! 2>/dev/null >${file(STARTING_FILE)}`
    const isNeeded = `itself=; ${isThere} || itself=--itself; test -n "$itself" || ! test -e ${file(ALL_FETCHED_FILE)}`
    const begin = `{ ${isNeeded}; } && { ${isWorking} || ${isStarting} || { ${start}; }; }`
    const isPromised = `{ test -e ${file(COMING_DIRECTORY)}/%f && ${isWorking}; }`
    // In this order: one that has begun promises, and only then is no longer starting.
    const mayCome = `{ ${isStarting} || ${isPromised} || ${isThere}; } && test $n -lt ${PROMISE_LOOKS}`
    const wait = `n=0; until ${isThere}; do ${mayCome} || break; sleep 0.01; n=$((n+1)); done`
    // One that never comes so far has ended, and nobody has asked for its status.
    const forget = `test $n -lt ${PROMISE_LOOKS} || rm -f ${file(STARTING_FILE)}`
    const copyLast = `if test -e ${last}; then cp ${last} "%p" && exit 0; fi`
    return `${begin}; ${wait}; ${forget}; ${copyLast}; mv ${fetched} "%p" 2>/dev/null && exit 0`
  }
}

/**
 * The part of it that fetches one file: only our 90 ("absent, by the plan") becomes 1, on which PostgreSQL ends recovery; whatever else goes
 * wrong, also a shell that cannot start us, becomes 255, on which it stops.
 */
export function getCommand(configPath: string, more: readonly string[] = []): string {
  const get = resusWords('wal-get', configPath, more).join(' ')
  return `${get} %f "%p"; case $? in 0) exit 0;; 90) exit 1;; *) exit 255;; esac`
}

function resusWords(verb: string, configPath: string, more: readonly string[]): string[] {
  const main = fileURLToPath(new URL('../../cli/main.js', import.meta.url))
  const words = [process.execPath, main, verb, '--config', configPath, '--plan', `${RECOVERY_DIRECTORY}/plan.json`, ...more]
  // A percent sign is PostgreSQL's own here.
  return words.map((word) => quoteShell(word).replaceAll('%', '%%'))
}

/** An argument as a shell has to read it. */
export function quoteShell(text: string): string {
  assert(!text.includes('\n'), 'a path has no line feed')
  return /^[\w./%=:-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`
}

/** A value as it stands between the quotes of a configuration file. */
export function quoteSetting(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll("'", "''")
}
