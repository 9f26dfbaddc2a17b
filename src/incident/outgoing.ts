import { request as requestHttp, Agent as HttpAgent, type IncomingMessage } from 'node:http'
import { request as requestHttps, Agent as HttpsAgent, type RequestOptions } from 'node:https'
import { isIP, type LookupFunction } from 'node:net'
import { Failure, systemErrorCode } from '../errors.ts'
import { isLoopback, resolveAllowed, type Address } from './addresses.ts'

const TIMEOUT_MS = 10_000
const BODY_BYTES_MAX = 64 * 1024

export interface OutgoingRequest {
  /** Only its host is ever shown: the rest may be a secret. */
  readonly url: string
  readonly method: 'GET' | 'POST'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** Calls hosts of the inner network as well, and this host without TLS. */
  readonly allowPrivate: boolean
  /** Certificates that are trusted instead of the public ones. */
  readonly ca?: Buffer
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/**
 * Calls out, once, and gives the reply's status; what else was replied is thrown away. The name is resolved once and only the addresses that were looked at are
 * connected to; redirects are not followed, proxies of the environment not used. Throws ADDRESS_REFUSED, CHANNEL_UNREACHABLE (which includes 10 s in all), and the
 * signal's reason.
 */
export async function callOut(call: OutgoingRequest): Promise<number> {
  const url = parseUrl(call.url)
  const timeoutMs = call.timeoutMs ?? TIMEOUT_MS
  const timeout = AbortSignal.timeout(timeoutMs)
  const signal = call.signal === undefined ? timeout : AbortSignal.any([call.signal, timeout])
  try {
    const addresses = await unlessAborted(resolveAllowed(url.hostname, call), signal)
    requireEncryption(url, addresses, call.allowPrivate)
    return await exchange(call, { url, addresses, signal })
  } catch (cause) {
    call.signal?.throwIfAborted()
    if (cause instanceof Failure) throw cause
    const why = timeout.aborted ? `no reply within ${timeoutMs / 1000} s` : (systemErrorCode(cause) ?? 'the connection broke')
    // The cause may hold the address with its path: it is not passed on.
    throw new Failure('CHANNEL_UNREACHABLE', `cannot call "${url.host}": ${why}`, { hint: hintFor(why) })
  }
}

function hintFor(why: string): string {
  return /CERT|SIGNATURE|ALTNAME/.test(why)
    ? 'its certificate is not trusted: name the authority that issued it with "ca"'
    : 'is it up, and does a firewall let this host through?'
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const good = url !== undefined && ['https:', 'http:'].includes(url.protocol) && url.username === '' && url.password === ''
  if (good) return url
  throw new Failure('ADDRESS_REFUSED', 'what should be called is no https address (it is not shown)', {
    hint: 'write it as "https://host/path", without user and password',
  })
}

function requireEncryption(url: URL, addresses: readonly Address[], allowPrivate: boolean): void {
  if (url.protocol === 'https:' || (allowPrivate && addresses.every(isLoopback))) return
  throw new Failure('ADDRESS_REFUSED', `"${url.host}" is not called without TLS`, {
    hint: 'write "https://"; "http://" is for this host alone, with "allowPrivate: true"',
  })
}

interface Target {
  readonly url: URL
  readonly addresses: readonly Address[]
  readonly signal: AbortSignal
}

async function exchange(call: OutgoingRequest, { url, addresses, signal }: Target): Promise<number> {
  const hostname = url.hostname.replace(/^\[(.*)\]$/, '$1')
  const isTls = url.protocol === 'https:'
  const body = call.body === undefined ? undefined : Buffer.from(call.body)
  const options: RequestOptions = {
    method: call.method,
    hostname,
    port: url.port === '' ? (isTls ? 443 : 80) : Number(url.port),
    path: `${url.pathname}${url.search}`,
    headers: { ...call.headers, ...(body === undefined ? {} : { 'content-length': body.length }), connection: 'close' },
    lookup: pinned(addresses),
    signal,
    // One of its own: the process's may have been told of a proxy.
    agent: isTls ? new HttpsAgent({ keepAlive: false }) : new HttpAgent({ keepAlive: false }),
    maxHeaderSize: BODY_BYTES_MAX,
    ...(isTls ? { rejectUnauthorized: true, minVersion: 'TLSv1.2' as const } : {}),
    ...(isTls && isIP(hostname) === 0 ? { servername: hostname } : {}),
    ...(call.ca === undefined ? {} : { ca: call.ca }),
  }
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = (isTls ? requestHttps : requestHttp)(options, resolve)
    request.on('error', reject)
    request.end(body)
  })
  await drain(response)
  return response.statusCode ?? 0
}

/** Resolves a name to what it was resolved to before: between the look and the connection nobody can change it. */
function pinned(addresses: readonly Address[]): LookupFunction {
  return (_hostname, options, done) => {
    const first = addresses[0]
    if (options.all === true) done(null, [...addresses])
    else done(null, first?.address ?? '', first?.family)
  }
}

/** Reads a little of the body, so that the peer sees a clean end. The status is known: what happens here changes nothing. */
async function drain(response: IncomingMessage): Promise<void> {
  let bytes = 0
  try {
    for await (const chunk of response) {
      bytes += (chunk as Buffer).length
      if (bytes > BODY_BYTES_MAX) break
    }
  } catch {
    // Broken off, or too slow.
  } finally {
    response.destroy()
  }
}

async function unlessAborted<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  signal.throwIfAborted()
  let stop = () => undefined as void
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(signal.reason as Error)
    signal.addEventListener('abort', stop)
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
