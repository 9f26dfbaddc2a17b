/**
 * The one list of expected failures. `exit` is the exit status of a command (1 failed or not verified, 2 could not run and
 * touched nothing), `http` the status of a route, `retry` whether trying again later can help without anybody's doing.
 */
export const FAILURES = {
  // Arguments, configuration, keys.
  ARGUMENTS_INVALID: { exit: 2, http: 400, retry: false },
  CONFIG_INVALID: { exit: 2, http: 400, retry: false },
  CONFIG_UNREADABLE: { exit: 2, http: 500, retry: false },
  SECRET_UNREADABLE: { exit: 2, http: 500, retry: false },
  DIRECTORY_UNWRITABLE: { exit: 2, http: 500, retry: false },
  COMPONENT_UNKNOWN: { exit: 2, http: 404, retry: false },
  KEY_WRONG: { exit: 2, http: 403, retry: false },
  // Storage: where bytes go.
  STORAGE_UNREACHABLE: { exit: 1, http: 503, retry: true },
  STORAGE_FULL: { exit: 1, http: 507, retry: false },
  STORAGE_STALLED: { exit: 1, http: 504, retry: true },
  OBJECT_EXISTS: { exit: 1, http: 409, retry: false },
  OBJECT_MISSING: { exit: 1, http: 404, retry: false },
  OBJECT_DAMAGED: { exit: 1, http: 500, retry: false },
  // Repository: what we keep.
  REPOSITORY_MISSING: { exit: 2, http: 404, retry: false },
  REPOSITORY_FOREIGN: { exit: 2, http: 409, retry: false },
  REPOSITORY_TOO_NEW: { exit: 2, http: 409, retry: false },
  BLOB_MISSING: { exit: 1, http: 500, retry: false },
  BACKUP_UNKNOWN: { exit: 2, http: 404, retry: false },
  BACKUP_ABSENT: { exit: 2, http: 404, retry: false },
  // PostgreSQL.
  POSTGRES_MISSING: { exit: 2, http: 500, retry: false },
  POSTGRES_UNREACHABLE: { exit: 1, http: 503, retry: true },
  POSTGRES_FAILED: { exit: 1, http: 500, retry: false },
  LOGIN_REFUSED: { exit: 2, http: 409, retry: false },
  SERVER_TOO_OLD: { exit: 2, http: 409, retry: false },
  SERVER_SETTING: { exit: 2, http: 409, retry: false },
  DATA_DIRECTORY_UNREADABLE: { exit: 2, http: 409, retry: false },
  CONFIGURATION_UNREADABLE: { exit: 2, http: 409, retry: false },
  BACKUP_RUNNING: { exit: 2, http: 409, retry: true },
  BACKUP_ABORTED: { exit: 1, http: 500, retry: true },
  PAGES_CORRUPT: { exit: 1, http: 200, retry: false },
  PRIMARY_UNCLEAR: { exit: 1, http: 409, retry: true },
  // WAL.
  SLOT_BUSY: { exit: 1, http: 409, retry: true },
  SLOT_LOST: { exit: 1, http: 409, retry: false },
  WAL_GAP: { exit: 1, http: 409, retry: false },
  WAL_INVALID: { exit: 1, http: 500, retry: false },
  ARCHIVE_MISMATCH: { exit: 2, http: 409, retry: false },
  WAL_CONFLICT: { exit: 1, http: 409, retry: false },
  SPOOL_DAMAGED: { exit: 1, http: 500, retry: false },
  SPOOL_FULL: { exit: 1, http: 507, retry: true },
  SPOOL_UNPUBLISHED: { exit: 1, http: 409, retry: false },
  LOCAL_WAL_UNPUBLISHED: { exit: 1, http: 409, retry: false },
  SPOOL_UNWRITABLE: { exit: 1, http: 500, retry: true },
  // Restore.
  TARGET_OUTSIDE_WINDOW: { exit: 2, http: 409, retry: false },
  DIRECTORY_NOT_EMPTY: { exit: 2, http: 409, retry: false },
  SAFETY_COPY_FAILED: { exit: 2, http: 409, retry: false },
  DIRECTORY_IN_USE: { exit: 2, http: 409, retry: false },
  TABLESPACE_IN_WAL: { exit: 2, http: 409, retry: false },
  RESTORE_COMMAND_FAILED: { exit: 1, http: 500, retry: false },
  DISK_FULL: { exit: 1, http: 507, retry: false },
  MEMORY_SHORT: { exit: 1, http: 507, retry: false },
  NOT_VERIFIED: { exit: 1, http: 200, retry: false },
  // Authority.
  FORBIDDEN: { exit: 2, http: 403, retry: false },
  LOG_ON_REFUSED: { exit: 2, http: 401, retry: false },
  LOCKED_OUT: { exit: 2, http: 429, retry: true },
  FACTOR_NEEDED: { exit: 2, http: 403, retry: false },
  FACTOR_WRONG: { exit: 2, http: 403, retry: false },
  IDENTITY_PROVIDER_UNREACHABLE: { exit: 1, http: 502, retry: true },
  PASSWORD_WEAK: { exit: 2, http: 400, retry: false },
  PERSON_UNKNOWN: { exit: 2, http: 404, retry: false },
  PEOPLE_CHANGED_OUTSIDE: { exit: 1, http: 409, retry: false },
  PERSON_EXISTS: { exit: 2, http: 409, retry: false },
  APPROVAL_NEEDED: { exit: 2, http: 403, retry: false },
  APPROVAL_UNKNOWN: { exit: 2, http: 404, retry: false },
  APPROVAL_INVALID: { exit: 2, http: 409, retry: false },
  AUDIT_BROKEN: { exit: 1, http: 500, retry: false },
  // Evidence.
  EVIDENCE_UNKNOWN: { exit: 2, http: 404, retry: false },
  // The control plane.
  CONTROL_PLANE_UNREACHABLE: { exit: 1, http: 502, retry: true },
  STORE_UNREACHABLE: { exit: 1, http: 503, retry: true },
  STORE_FOREIGN: { exit: 2, http: 500, retry: false },
  UNAUTHENTICATED: { exit: 2, http: 401, retry: false },
  NOT_FOUND: { exit: 2, http: 404, retry: false },
  TASK_UNKNOWN: { exit: 2, http: 404, retry: false },
  KEY_REUSED: { exit: 2, http: 422, retry: false },
  HEARTBEAT_MISSING: { exit: 1, http: 409, retry: false },
  NOT_BUILT: { exit: 2, http: 501, retry: false },
  CHANNEL_UNKNOWN: { exit: 2, http: 404, retry: false },
  CHANNEL_UNREACHABLE: { exit: 1, http: 502, retry: true },
  CHANNEL_REFUSED: { exit: 1, http: 502, retry: false },
  ADDRESS_REFUSED: { exit: 2, http: 403, retry: false },
  BUSY: { exit: 1, http: 429, retry: true },
  INTERRUPTED: { exit: 1, http: 499, retry: true },
} as const satisfies Record<string, { exit: 1 | 2; http: number; retry: boolean }>

export type FailureCode = keyof typeof FAILURES

/**
 * An expected failure: what was attempted on what, what was found and what was wanted, and a hint for the operator's next step.
 * Everything else that is thrown is a bug of ours.
 */
export class Failure extends Error {
  readonly code: FailureCode
  readonly hint: string | undefined

  constructor(code: FailureCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'Failure'
    this.code = code
    this.hint = options.hint
  }

  get exitStatus(): 1 | 2 {
    return FAILURES[this.code].exit
  }
}

/** The `code` of a Node.js system error (`ENOENT`), or undefined for anything else. */
export function systemErrorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}
