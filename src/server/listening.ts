import { readFile } from 'node:fs/promises'
import type { Server as HttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createSecureContext } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import { Failure, systemErrorCode } from '../errors.ts'
import type { ServerSettings } from './settings.ts'

/** A certificate with its key, as PEM. */
export interface TlsFiles {
  readonly cert: Buffer
  readonly key: Buffer
}

/** The certificate of the settings; undefined for plain HTTP. Throws SECRET_UNREADABLE for files that are not there, or do not belong together. */
export async function readTls({ tls }: Pick<ServerSettings, 'tls'>): Promise<TlsFiles | undefined> {
  if (tls === undefined) return undefined
  try {
    const files = { cert: await readFile(tls.certificate), key: await readFile(tls.key) }
    createSecureContext(files)
    return files
  } catch (cause) {
    const why = systemErrorCode(cause) ?? (cause instanceof Error ? cause.message : String(cause))
    throw new Failure(
      'SECRET_UNREADABLE',
      `the certificate "${tls.certificate}" with its key "${tls.key}" cannot be used: ${why}`,
      {
        hint: 'both are PEM files that this account may read, and the key is that of the certificate',
        cause,
      },
    )
  }
}

/** Takes changed files of the certificate for the connections that come from now on. */
export class TlsReload {
  readonly #settings: Pick<ServerSettings, 'tls'>
  readonly #api: FastifyInstance
  #inForce: TlsFiles | undefined
  #refused = ''

  constructor(settings: Pick<ServerSettings, 'tls'>, api: FastifyInstance, inForce: TlsFiles | undefined) {
    this.#settings = settings
    this.#api = api
    this.#inForce = inForce
  }

  /** Throws what `readTls` throws, once: the old one stays in force then. */
  async look(report: (text: string) => void): Promise<void> {
    const now = await readTls(this.#settings).catch((error: unknown) => {
      const why = String(error)
      const isKnown = why === this.#refused
      this.#refused = why
      if (!isKnown) throw error
      return this.#inForce
    })
    if (now === undefined || this.#inForce === undefined) return
    if (now.cert.equals(this.#inForce.cert) && now.key.equals(this.#inForce.key)) return
    const server = this.#api.server as unknown as HttpsServer
    server.setSecureContext({ ...now, minVersion: 'TLSv1.2' })
    this.#inForce = now
    this.#refused = ''
    report('another certificate is in force')
  }
}

/** Listens, and gives the address. Throws ARGUMENTS_INVALID when that is taken or is not ours. */
export async function listen(api: FastifyInstance, { listen: { host, port }, tls }: ServerSettings): Promise<string> {
  try {
    await api.listen({ host, port })
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (code === undefined) throw cause
    throw new Failure('ARGUMENTS_INVALID', `the API cannot listen on ${host}:${port}: ${code}`, {
      hint: 'is another "resus serve" running? Set another address with "listen" in server.yaml',
      cause,
    })
  }
  const address = api.server.address() as AddressInfo
  const shown = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return `${tls === undefined ? 'http' : 'https'}://${shown}:${address.port}`
}
