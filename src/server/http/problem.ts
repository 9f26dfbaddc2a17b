import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { hasZodFastifySchemaValidationErrors, isResponseSerializationError } from 'fastify-type-provider-zod'
import type { Problem } from '../../api/schemas.ts'
import { isStoreAway } from '../../catalog/store.ts'
import { Failure, FAILURES, type FailureCode } from '../../errors.ts'

/** A failure as RFC 9457 says it. */
export function problemOf(failure: Failure): Problem {
  const { code, message, hint = null } = failure
  return {
    type: `urn:resus:problem:${code}`,
    title: code.toLowerCase().replaceAll('_', ' '),
    status: statusOf(code),
    detail: message,
    code,
    hint,
  }
}

/** What a verb answers with exit status 0 or 1 is no problem of the request; as one it is. */
function statusOf(code: FailureCode): number {
  const { http } = FAILURES[code]
  return http >= 400 ? http : 500
}

/** Only what we serve ourselves; the page of the API's documentation has its styles inline. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** Of every answer. */
export const SECURITY_HEADERS = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
}

export async function answerError(error: FastifyError | Error, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const problem = problemFrom(error, request)
  // What met no route met no hook either.
  reply.headers(SECURITY_HEADERS)
  // A line each: browsers look at the first scheme of a line alone.
  if (problem.status === 401) reply.header('WWW-Authenticate', ['Bearer realm="resus"', 'Basic realm="resus", charset="UTF-8"'])
  if (problem.status === 503) reply.header('Retry-After', '5')
  await reply.code(problem.status).type('application/problem+json; charset=utf-8').serializer(JSON.stringify).send(problem)
}

function problemFrom(error: FastifyError | Error, request: FastifyRequest): Problem {
  if (error instanceof Failure) return problemOf(error)
  if (hasZodFastifySchemaValidationErrors(error)) return invalidRequest(error)
  if (isStoreAway(error)) {
    return problemOf(
      new Failure('STORE_UNREACHABLE', 'the control plane cannot reach its store just now; nothing was changed', {
        hint: 'protection goes on without it; try again',
      }),
    )
  }
  const { statusCode, message } = error as FastifyError
  if (!isResponseSerializationError(error) && statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return { ...problemOf(new Failure('ARGUMENTS_INVALID', message)), status: statusCode }
  }
  request.log.error(error)
  const hint = 'this is a bug of Resus: the log of the server has more'
  return {
    type: 'urn:resus:problem:BUG',
    title: 'bug',
    status: 500,
    detail: 'that went wrong, and nobody expected it',
    code: 'BUG',
    hint,
  }
}

function invalidRequest(error: { readonly validation: readonly { instancePath: string; message?: string }[] }): Problem {
  const errors = error.validation.map(({ instancePath, message = 'is not valid' }) => ({
    at: instancePath || '/',
    problem: message,
  }))
  const [first] = errors
  const detail = `the request is not valid: ${first?.at ?? '/'}: ${first?.problem ?? ''}`
  return { ...problemOf(new Failure('ARGUMENTS_INVALID', detail, { hint: 'see "errors"; nothing was started' })), errors }
}
