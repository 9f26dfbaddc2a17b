import { createTransport } from 'nodemailer'
import { isIP } from 'node:net'
import { resolveSecret } from '../config/secret-reference.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { isLoopback, resolveHost } from './addresses.ts'
import { readAuthorities } from './authorities.ts'
import type { EmailChannel, Smtp } from './channel.ts'
import { bodyOf, subjectOf, wordsOf, type Message } from './message.ts'

const CONNECT_TIMEOUT_MS = 10_000
const SOCKET_TIMEOUT_MS = 15_000
const REPLY_BYTES_MAX = 16 * 1024

/**
 * Gives the server's reply, and whom it would not take. Certificates are always verified, against the name in the configuration. Throws SECRET_UNREADABLE,
 * CHANNEL_UNREACHABLE for what passes by itself, CHANNEL_REFUSED when the server will not take it, and the signal's reason.
 */
export async function sendEmail(channel: EmailChannel, message: Message, signal: AbortSignal): Promise<string> {
  const { smtp, name } = channel
  const password =
    smtp.password === undefined ? undefined : await resolveSecret(smtp.password, `the password of the channel "${name}"`)
  const plain = password?.reveal().toString('utf8')
  const transport = createTransport({
    ...(await connection(channel)),
    ...(smtp.user === undefined || plain === undefined ? {} : { auth: { user: smtp.user, pass: plain } }),
  })
  try {
    const sent = await transport.sendMail({ ...mail(channel, message), signal })
    const left = sent.rejected.length === 0 ? '' : `; not taken for ${sent.rejected.join(', ')}`
    return wordsOf(`${sent.response}${left}`, plain === undefined ? [] : [plain])
  } catch (error) {
    signal.throwIfAborted()
    throw failureOf(error, smtp, plain)
  } finally {
    transport.close()
  }
}

async function connection({ smtp, ca }: EmailChannel) {
  // By the system's own resolver, which knows /etc/hosts; nodemailer asks name servers alone first.
  const [address] = await resolveHost(smtp.host)
  if (address === undefined) throw new Failure('CHANNEL_UNREACHABLE', `the name "${smtp.host}" leads nowhere`)
  if (smtp.tls === 'none' && !isLoopback(address)) {
    throw new Failure('ADDRESS_REFUSED', `"${smtp.host}" is ${address.address}: no mail goes there without TLS`, {
      hint: '"tls: none" is for a server on this host alone',
    })
  }
  return {
    host: address.address,
    port: smtp.port,
    secure: smtp.tls === 'implicit',
    requireTLS: smtp.tls === 'required',
    ignoreTLS: smtp.tls === 'none',
    tls: {
      rejectUnauthorized: true,
      minVersion: 'TLSv1.2' as const,
      ...(isIP(smtp.host) === 0 ? { servername: smtp.host } : {}),
      ...(ca === undefined ? {} : { ca: await readAuthorities(ca) }),
    },
    connectionTimeout: CONNECT_TIMEOUT_MS,
    greetingTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: SOCKET_TIMEOUT_MS,
    maxResponseSize: REPLY_BYTES_MAX,
    disableFileAccess: true,
    disableUrlAccess: true,
  }
}

function mail(channel: EmailChannel, message: Message) {
  const host = channel.from.slice(channel.from.lastIndexOf('@') + 1)
  return {
    from: { name: 'Resus', address: channel.from },
    to: channel.to.map((address) => ({ name: '', address })),
    subject: subjectOf(message),
    text: bodyOf(message),
    // The same at each attempt: a mailbox knows one that came twice.
    messageId: `<${message.id}@${host}>`,
    date: new Date(message.at),
    headers: { 'Auto-Submitted': 'auto-generated', 'X-Resus-Notice': message.id },
  }
}

function failureOf(error: unknown, smtp: Smtp, password: string | undefined): Failure {
  const place = `${smtp.host}:${smtp.port}`
  const { responseCode, response } = repliedBy(error)
  const secrets = password === undefined ? [] : [password]
  if (response !== undefined) {
    const said = wordsOf(`${place} replied: ${response}`, secrets)
    // 5xx is for good, by the protocol; 4xx passes.
    const hint = systemErrorCode(error) === 'ETLS' ? 'it does not speak TLS there' : 'are user, password, "from" and "to" right?'
    if (responseCode >= 500) return new Failure('CHANNEL_REFUSED', said, { hint })
    return new Failure('CHANNEL_UNREACHABLE', said, { hint: 'the server asks to try again later' })
  }
  // Messages of Node.js and nodemailer about connections and certificates.
  const why = error instanceof Error ? error.message : (systemErrorCode(error) ?? 'unknown')
  return new Failure('CHANNEL_UNREACHABLE', wordsOf(`cannot send mail by ${place}: ${why}`, secrets), {
    hint: /certificate/i.test(why)
      ? 'name the authority that issued its certificate with "ca", and the server as it is named in it'
      : 'are host, port and "tls" right, and does a firewall let this host through?',
  })
}

function repliedBy(error: unknown): { responseCode: number; response: string | undefined } {
  if (!(error instanceof Error)) return { responseCode: 0, response: undefined }
  const { responseCode, response } = error as { responseCode?: unknown; response?: unknown }
  const isReply = typeof responseCode === 'number' && typeof response === 'string'
  return isReply ? { responseCode, response } : { responseCode: 0, response: undefined }
}
