import { createHmac } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { resolveSecret } from '../config/secret-reference.ts'
import { Failure } from '../errors.ts'
import type { Secret } from '../secret.ts'
import { readAuthorities } from './authorities.ts'
import type { WebhookChannel } from './channel.ts'
import { bodyOf, severityOf, subjectOf, type Message } from './message.ts'
import { callOut } from './outgoing.ts'

/** Gives "HTTP 200". Throws SECRET_UNREADABLE, what `callOut` throws, and what `requireTaken` throws. */
export async function postWebhook(
  channel: WebhookChannel,
  message: Message,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<string> {
  const secret = await resolveSecret(channel.secret, `the secret of the channel "${channel.name}"`)
  const body = JSON.stringify({
    ...message,
    entries: message.entries.map((entry) => ({ ...entry, audience: undefined })),
    severity: severityOf(message),
    subject: subjectOf(message),
    text: bodyOf(message),
  })
  const status = await callOut({
    url: channel.url,
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'user-agent': 'Resus',
      'resus-notice': message.id,
      'resus-signature': signature(secret, Math.floor(clock.now() / 1000), body),
    },
    body,
    allowPrivate: channel.allowPrivate,
    ...(channel.ca === undefined ? {} : { ca: await readAuthorities(channel.ca) }),
    signal,
  })
  return requireTaken(status)
}

/** `t=<seconds since 1970>,v1=<hex HMAC-SHA-256 of "<seconds>.<body>">`: the receiver refuses what is old, or not from us. */
function signature(secret: Secret, seconds: number, body: string): string {
  const hmac = createHmac('sha256', secret.reveal()).update(`${seconds}.`).update(body).digest('hex')
  return `t=${seconds},v1=${hmac}`
}

/** Throws CHANNEL_UNREACHABLE for what passes by itself, CHANNEL_REFUSED for the rest. */
export function requireTaken(status: number): string {
  if (status >= 200 && status < 300) return `HTTP ${status}`
  const passes = status >= 500 || [408, 425, 429].includes(status)
  if (passes) throw new Failure('CHANNEL_UNREACHABLE', `the receiver replied HTTP ${status}`, { hint: 'see its own log' })
  const redirect = status >= 300 && status < 400
  throw new Failure('CHANNEL_REFUSED', `the receiver replied HTTP ${status}${redirect ? ', which is not followed' : ''}`, {
    hint: redirect ? 'name the address that it leads to' : 'is the address right, and does the receiver know the secret?',
  })
}
