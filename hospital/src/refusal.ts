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
  NOT_ACCEPTABLE: { status: 406, issue: 'not-supported' },
  UNREADABLE_MEDIA: { status: 415, issue: 'not-supported' },
  TOO_LARGE: { status: 413, issue: 'too-long' },
  DAMAGED: { status: 500, issue: 'exception' },
  UNAVAILABLE: { status: 503, issue: 'transient' },
} as const satisfies Record<string, { status: number; issue: string }>

export type RefusalCode = keyof typeof REFUSALS

export interface RefusalMore {
  readonly hint?: string
  readonly expression?: string
  readonly issue?: string
  readonly others?: readonly Refusal[]
  readonly cause?: unknown
}

/** Something that was asked for and is not done, with nothing changed. The message quotes what was found; the hint says what to do. */
export class Refusal extends Error {
  readonly code: RefusalCode
  readonly hint: string | undefined
  /** Where in the body, as FHIRPath or a field's name. */
  readonly expression: string | undefined
  /** An issue type of FHIR that says more than the code's. */
  readonly issue: string | undefined
  /** What else is wrong with the same request. */
  readonly others: readonly Refusal[]

  constructor(code: RefusalCode, message: string, more: RefusalMore = {}) {
    super(message, { cause: more.cause })
    this.name = 'Refusal'
    this.code = code
    this.hint = more.hint
    this.expression = more.expression
    this.issue = more.issue
    this.others = more.others ?? []
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
