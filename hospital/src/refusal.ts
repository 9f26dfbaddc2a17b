/** What can be wrong with what somebody asks of the hospital, and how each face says so: an HTTP status, and the issue type of an OperationOutcome. */
export const REFUSALS = {
  BAD_REQUEST: { status: 400, issue: 'invalid' },
  INVALID: { status: 422, issue: 'processing' },
  UNAUTHENTICATED: { status: 401, issue: 'login' },
  FORBIDDEN: { status: 403, issue: 'forbidden' },
  NOT_FOUND: { status: 404, issue: 'not-found' },
  NOT_SUPPORTED: { status: 405, issue: 'not-supported' },
  VERSION_CONFLICT: { status: 412, issue: 'conflict' },
  CONFLICT: { status: 409, issue: 'conflict' },
  UNREADABLE_MEDIA: { status: 415, issue: 'not-supported' },
  TOO_LARGE: { status: 413, issue: 'too-long' },
  UNAVAILABLE: { status: 503, issue: 'transient' },
} as const satisfies Record<string, { status: number; issue: string }>

export type RefusalCode = keyof typeof REFUSALS

/** Something that was asked for and is not done, with nothing changed. The message quotes what was found; the hint says what to do. */
export class Refusal extends Error {
  readonly code: RefusalCode
  readonly hint: string | undefined
  /** Where in the body, as FHIRPath or a field's name. */
  readonly expression: string | undefined

  constructor(code: RefusalCode, message: string, more: { hint?: string; expression?: string; cause?: unknown } = {}) {
    super(message, { cause: more.cause })
    this.name = 'Refusal'
    this.code = code
    this.hint = more.hint
    this.expression = more.expression
  }
}

/** A command that cannot run: bad arguments, no database, a place that is in use. Nothing was changed. */
export class CannotRun extends Error {
  readonly hint: string | undefined

  constructor(message: string, more: { hint?: string; cause?: unknown } = {}) {
    super(message, { cause: more.cause })
    this.name = 'CannotRun'
    this.hint = more.hint
  }
}
