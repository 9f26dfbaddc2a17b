import { Failure } from '../errors.ts'
import { parseLsn } from '../postgres/lsn.ts'
import { RECOVERY_ACTIONS, type RecoveryAction, type RecoveryTarget } from '../protect/postgres/recovery-target.ts'
import type { RestoreOptions } from '../protect/postgres/restore.ts'
import { parseTablespaceMapping } from '../protect/postgres/tablespace-map.ts'
import { parseTargetTime } from './target-time.ts'
import { optionalText, type Given } from './verb.ts'

export const TARGETS = ['latest', 'targetTime', 'targetLsn', 'targetXid', 'targetName'] as const
/** PostgreSQL's own limit of a restore point's name. */
const NAME_BYTES_MAX = 63
const TIMELINE_MAX = 0xffffffff
/** Ids below belong to no transaction. */
const FIRST_XID = 3n
const XID_BITS = 32
const REQUEST = /^[A-Za-z0-9._-]{1,64}$/

export type RestoreRequest = Pick<
  RestoreOptions,
  | 'target'
  | 'timeline'
  | 'from'
  | 'action'
  | 'tablespaceMappings'
  | 'withoutSpool'
  | 'withoutLocalWal'
  | 'delta'
  | 'safetyCopy'
  | 'withoutSafetyCopy'
  | 'request'
> & {
  readonly preview: boolean
}

/** What the options of `restore` ask for. Throws ARGUMENTS_INVALID. */
export function restoreRequest(given: Given): RestoreRequest {
  const target = restoreTarget(given)
  const timeline = restoreTimeline(given)
  const action = restoreAction(given)
  const backup = optionalText(given, 'backup')
  if (target.kind === 'backup' && timeline !== undefined) {
    throw invalid('--target-timeline says nothing where --backup is the target', 'a backup alone is restored on its own timeline')
  }
  const request = restoreName(optionalText(given, 'request'))
  const maps = given.options.tablespaceMap
  return {
    target,
    ...(timeline === undefined ? {} : { timeline }),
    ...(backup === undefined || target.kind === 'backup' ? {} : { from: backup }),
    ...(action === undefined ? {} : { action }),
    tablespaceMappings: Array.isArray(maps) ? maps.map((map) => parseTablespaceMapping(String(map))) : [],
    ...(request === undefined ? {} : { request }),
    ...safetyOf(given),
    ...(given.options.withoutSpool === true ? { withoutSpool: true } : {}),
    ...(given.options.withoutLocalWal === true ? { withoutLocalWal: true } : {}),
    preview: given.options.preview === true,
  }
}

function restoreName(text: string | undefined): string | undefined {
  if (text === undefined || REQUEST.test(text)) return text
  throw invalid(`--request is "${text}", wanted 1 to 64 letters, digits, ".", "_" and "-"`, 'the id of a ticket or a task')
}

function safetyOf(given: Given): Pick<RestoreOptions, 'delta' | 'safetyCopy' | 'withoutSafetyCopy'> {
  const delta = given.options.delta === true
  const safetyCopy = optionalText(given, 'safetyCopy')
  const without = given.options.withoutSafetyCopy === true
  if (!delta && (safetyCopy !== undefined || without)) {
    throw invalid('a safety copy is of what --delta goes over', 'a restore into an empty directory changes nothing that is there')
  }
  if (safetyCopy !== undefined && without) {
    throw invalid('--safety-copy and --without-safety-copy contradict each other', 'give one of them')
  }
  return { delta, ...(safetyCopy === undefined ? {} : { safetyCopy }), ...(without ? { withoutSafetyCopy: true } : {}) }
}

/** Which moment is asked for; the latest where none is named. Throws ARGUMENTS_INVALID. */
export function restoreTarget(given: Given): RecoveryTarget {
  const named = TARGETS.filter((name) => given.options[name] !== undefined)
  if (named.length > 1) {
    throw invalid(
      'a restore has one target, and several were given',
      'give one of --latest, --target-time, --target-lsn, --target-xid, --target-name; --backup may go with it',
    )
  }
  const [name] = named
  const exclusive = given.options.exclusive === true
  if (exclusive && name !== 'targetTime' && name !== 'targetLsn' && name !== 'targetXid') {
    throw invalid('--exclusive says nothing about this target', 'it goes with --target-time, --target-lsn or --target-xid')
  }
  const before = exclusive ? { exclusive } : {}
  const value = name === undefined ? '' : String(given.options[name])
  switch (name) {
    case 'targetTime':
      return { kind: 'time', micros: parseTargetTime(value), ...before }
    case 'targetLsn':
      return { kind: 'lsn', lsn: parseLsn(value), ...before }
    case 'targetXid':
      return { kind: 'xid', xid: parseXid(value), ...before }
    case 'targetName':
      return { kind: 'name', name: parseName(value) }
    case 'latest':
      return { kind: 'latest' }
    case undefined: {
      const backup = optionalText(given, 'backup')
      return backup === undefined ? { kind: 'latest' } : { kind: 'backup', backup }
    }
    default:
      return name satisfies never
  }
}

function restoreTimeline(given: Given): number | undefined {
  const text = optionalText(given, 'targetTimeline')
  if (text === undefined) return undefined
  const timeline = /^[1-9]\d{0,9}$/.test(text) ? Number(text) : Number.NaN
  if (timeline <= TIMELINE_MAX) return timeline
  throw invalid(
    `--target-timeline is "${text}", wanted a number`,
    'a timeline is a number, like 2; without it the newest is taken',
  )
}

function restoreAction(given: Given): RecoveryAction | undefined {
  const text = optionalText(given, 'action')
  if (text === undefined) return undefined
  const action = RECOVERY_ACTIONS.find((each) => each === text)
  if (action !== undefined) return action
  throw invalid(`--action is "${text}", wanted one of ${RECOVERY_ACTIONS.join(', ')}`, 'without it the cluster is promoted')
}

/** As `txid_current()` gives it, too: with the epoch in its upper half, of which PostgreSQL's own setting knows nothing. */
function parseXid(text: string): number {
  const xid = /^\d{1,20}$/.test(text) ? BigInt.asUintN(XID_BITS, BigInt(text)) : 0n
  if (xid >= FIRST_XID) return Number(xid)
  throw invalid(`--target-xid is "${text}", wanted the id of a transaction`, 'an id is a number from 3 on, like 75432')
}

function parseName(text: string): string {
  const bytes = Buffer.byteLength(text)
  if (bytes > 0 && bytes <= NAME_BYTES_MAX) return text
  throw invalid(`--target-name has ${bytes} bytes, wanted 1 to ${NAME_BYTES_MAX}`, 'name a point made by pg_create_restore_point')
}

function invalid(message: string, hint: string): Failure {
  return new Failure('ARGUMENTS_INVALID', message, { hint })
}
