import { readFile } from 'node:fs/promises'
import type { z } from 'zod'
import { problemSchema } from '../api/schemas.ts'
import { Failure, FAILURES, systemErrorCode, type FailureCode } from '../errors.ts'
import { Secret } from '../secret.ts'
import { SessionCredential, tokenCredential, type Credential } from './credential.ts'
import { readSession } from './kept-session.ts'
import { optionalText, type Given } from './verb.ts'

export const DEFAULT_URL = 'http://127.0.0.1:7400'
export const DEFAULT_TOKEN_FILE = '/var/lib/resus/server/administrator-token'
const ANSWER_TIMEOUT_MS = 30_000
const LOOPBACK = /^(127(\.\d{1,3}){3}|\[::1\]|localhost)$/

/** Asks a `resus serve` over HTTP, as anybody may who has a token of it, or has logged on. */
export class ControlPlaneClient {
  readonly url: string
  readonly #credential: Credential
  readonly #signal: AbortSignal

  /** By --token-file or RESUS_TOKEN_FILE; or as who is logged on; or by the token that a `resus serve` on this host has. Throws SECRET_UNREADABLE. */
  static async of(given: Given, signal: AbortSignal): Promise<ControlPlaneClient> {
    const url = urlOf(given)
    const named = optionalText(given, 'tokenFile') ?? process.env.RESUS_TOKEN_FILE
    if (named === undefined && (await readSession(url)) !== undefined) {
      return new ControlPlaneClient(url, new SessionCredential(url), signal)
    }
    return new ControlPlaneClient(url, await readToken(named ?? DEFAULT_TOKEN_FILE), signal)
  }

  /** As the person who is logged on: no token does what they do. Throws UNAUTHENTICATED, SECRET_UNREADABLE. */
  static async ofPerson(given: Given, signal: AbortSignal): Promise<ControlPlaneClient> {
    const url = urlOf(given)
    if ((await readSession(url)) !== undefined) return ControlPlaneClient.logOn(url, signal)
    throw new Failure('UNAUTHENTICATED', `nobody is logged on at ${url}`, {
      hint: '"resus log-on"; --url or RESUS_URL names another address',
    })
  }

  /** As nobody yet, and as whoever logs on by it. Throws ARGUMENTS_INVALID where a password would go over the network in clear. */
  static logOn(url: string, signal: AbortSignal): ControlPlaneClient {
    const { protocol, hostname } = new URL(url)
    if (protocol === 'https:' || LOOPBACK.test(hostname)) {
      return new ControlPlaneClient(url, new SessionCredential(url), signal)
    }
    throw new Failure('ARGUMENTS_INVALID', `${url} is another host, by plain http: passwords would go there in clear`, {
      hint: 'name its https address, or log on at that host itself',
    })
  }

  private constructor(url: string, credential: Credential, signal: AbortSignal) {
    this.url = url
    this.#credential = credential
    this.#signal = signal
  }

  /** What a route below /api/v1/backup-dr answers; throws as `ask` does. */
  async get<T>(path: string, schema: z.ZodType<T>): Promise<T> {
    return await this.ask(`GET /backup-dr${path}`, schema)
  }

  /** What "METHOD /path" below /api/v1 answers. Throws what the server says, with its code; CONTROL_PLANE_UNREACHABLE, SECRET_UNREADABLE. */
  async ask<T>(what: string, schema: z.ZodType<T>, body?: unknown): Promise<T> {
    const { answer, document } = await this.#send(what, body)
    if (answer.ok) {
      const parsed = schema.safeParse(document)
      if (parsed.success) return parsed.data
      throw this.#unreachable('what answers there is no control plane of this version')
    }
    const problem = problemOf(document) ?? this.#unreachable(`it answers with status ${answer.status}`)
    if (this.#credential.kind === 'session' && problem.code === 'UNAUTHENTICATED') throw ended(this.url)
    throw problem
  }

  async #send(what: string, body: unknown): Promise<{ readonly answer: Response; readonly document: unknown }> {
    const [method = 'GET', path = ''] = what.split(' ')
    const headers = {
      ...(await this.#credential.headers()),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    }
    const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)])
    const json = body === undefined ? {} : { body: JSON.stringify(body) }
    let answer: Response
    let text: string
    try {
      answer = await fetch(`${this.url}/api/v1${path}`, { method, headers, ...json, signal, redirect: 'error' })
      text = await answer.text()
    } catch (cause) {
      this.#signal.throwIfAborted()
      throw this.#unreachable(reasonOf(cause), cause)
    }
    const document = parseJson(text)
    await this.#credential.keep(answer.headers, document)
    return { answer, document }
  }

  #unreachable(why: string, cause?: unknown): Failure {
    return new Failure('CONTROL_PLANE_UNREACHABLE', `the control plane at ${this.url} cannot be asked: ${why}`, {
      hint: 'is "resus serve" running, and is that its address? Name another with --url',
      cause,
    })
  }
}

/** By --url or RESUS_URL, or where a `resus serve` on this host listens. Throws ARGUMENTS_INVALID. */
export function urlOf(given: Given, fallback = DEFAULT_URL): string {
  const text = optionalText(given, 'url') ?? process.env.RESUS_URL ?? fallback
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url !== undefined && /^https?:$/.test(url.protocol) && `${url.username}${url.password}${url.search}${url.hash}` === '') {
    return url.href.replace(/\/+$/, '')
  }
  throw new Failure('ARGUMENTS_INVALID', 'the address of the control plane is no http(s) address', {
    hint: `it is like ${DEFAULT_URL}, without a name or a password`,
  })
}

async function readToken(path: string): Promise<Credential> {
  try {
    return tokenCredential(new Secret((await readFile(path, 'utf8')).trim()))
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (code === undefined) throw cause
    throw new Failure('SECRET_UNREADABLE', `the token of the control plane cannot be read from "${path}": ${code}`, {
      hint: 'log on ("resus log-on"), or name a token with --token-file; while there are no people it is "administrator-token" in the state directory of "resus serve"',
      cause,
    })
  }
}

function ended(url: string): Failure {
  return new Failure('UNAUTHENTICATED', `the session at ${url} has ended`, {
    hint: '"resus log-on"; 15 minutes without a command end one, 12 hours do, and so does a copy of it that is used elsewhere',
  })
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
