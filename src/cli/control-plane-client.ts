import { readFile } from 'node:fs/promises'
import type { z } from 'zod'
import { problemSchema } from '../api/schemas.ts'
import { Failure, FAILURES, systemErrorCode, type FailureCode } from '../errors.ts'
import { Secret } from '../secret.ts'
import { optionalText, type Given } from './verb.ts'

export const DEFAULT_URL = 'http://127.0.0.1:7400'
export const DEFAULT_TOKEN_FILE = '/var/lib/resus/server/administrator-token'
const ANSWER_TIMEOUT_MS = 30_000

/** Asks a `resus serve` over HTTP, as anybody may who has its token. */
export class ControlPlaneClient {
  readonly #url: string
  readonly #token: Secret
  readonly #signal: AbortSignal

  /** By --url and --token-file, RESUS_URL and RESUS_TOKEN_FILE, or where a `resus serve` on this host has them. Throws SECRET_UNREADABLE. */
  static async of(given: Given, signal: AbortSignal): Promise<ControlPlaneClient> {
    const url = optionalText(given, 'url') ?? process.env.RESUS_URL ?? DEFAULT_URL
    const path = optionalText(given, 'tokenFile') ?? process.env.RESUS_TOKEN_FILE ?? DEFAULT_TOKEN_FILE
    try {
      return new ControlPlaneClient(url, new Secret((await readFile(path, 'utf8')).trim()), signal)
    } catch (cause) {
      const code = systemErrorCode(cause)
      if (code === undefined) throw cause
      throw new Failure('SECRET_UNREADABLE', `the token of the control plane cannot be read from "${path}": ${code}`, {
        hint: 'it is "administrator-token" in the state directory of "resus serve"; name it with --token-file',
        cause,
      })
    }
  }

  private constructor(url: string, token: Secret, signal: AbortSignal) {
    this.#url = url.replace(/\/+$/, '')
    this.#token = token
    this.#signal = signal
  }

  /** What a route below /api/v1/backup-dr answers. Throws what the server says, with its code; CONTROL_PLANE_UNREACHABLE. */
  async get<T>(path: string, schema: z.ZodType<T>): Promise<T> {
    const address = `${this.#url}/api/v1/backup-dr${path}`
    const headers = { authorization: `Bearer ${this.#token.reveal().toString('utf8')}` }
    const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)])
    let answer: Response
    let text: string
    try {
      answer = await fetch(address, { headers, signal, redirect: 'error' })
      text = await answer.text()
    } catch (cause) {
      this.#signal.throwIfAborted()
      throw this.#unreachable(reasonOf(cause), cause)
    }
    const body = parseJson(text)
    if (answer.ok) {
      const parsed = schema.safeParse(body)
      if (parsed.success) return parsed.data
      throw this.#unreachable('what answers there is no control plane of this version')
    }
    throw problemOf(body) ?? this.#unreachable(`it answers with status ${answer.status}`)
  }

  #unreachable(why: string, cause?: unknown): Failure {
    return new Failure('CONTROL_PLANE_UNREACHABLE', `the control plane at ${this.#url} cannot be asked: ${why}`, {
      hint: 'is "resus serve" running, and is that its address? Name another with --url',
      cause,
    })
  }
}

/** fetch hides the reason one error deeper. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined
  return systemErrorCode(cause) ?? systemErrorCode(error) ?? (error instanceof Error ? error.message : String(error))
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function problemOf(body: unknown): Failure | undefined {
  const parsed = problemSchema.safeParse(body)
  if (!parsed.success) return undefined
  const { code, detail, hint } = parsed.data
  const known: FailureCode = Object.hasOwn(FAILURES, code) ? (code as FailureCode) : 'CONTROL_PLANE_UNREACHABLE'
  return new Failure(known, detail, hint === null ? {} : { hint })
}
