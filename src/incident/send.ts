import { randomUUID } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import type { Channel } from './channel.ts'
import { sendEmail } from './email.ts'
import type { Message } from './message.ts'
import { postSlack } from './slack.ts'
import { postWebhook } from './webhook.ts'

/** Longest that one message may take on one channel. */
export const SEND_TIMEOUT_MS = 30_000

/**
 * Sends a message by a channel, once, and gives the outcome in words: the reply's status, never its content. Throws a `Failure` in the same manner, whose code says
 * whether trying again may help, and the signal's reason.
 */
export async function sendMessage(
  channel: Channel,
  message: Message,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<string> {
  const timeout = AbortSignal.timeout(SEND_TIMEOUT_MS)
  const until = AbortSignal.any([signal, timeout])
  try {
    return await dispatch(channel, message, { clock, signal: until })
  } catch (error) {
    if (!timeout.aborted || signal.aborted) throw error
    throw new Failure('CHANNEL_UNREACHABLE', `not done within ${SEND_TIMEOUT_MS / 1000} s`, {
      hint: 'is the other side very slow?',
    })
  }
}

/** Sends a message that is marked as a test, and gives the outcome in words. Throws the signal's reason. */
export async function sendTest(
  channel: Channel,
  context: { clock: Clock; signal: AbortSignal },
): Promise<{ delivered: boolean; words: string }> {
  const lines = [`This is a test of the channel "${channel.name}". Nothing is wrong.`]
  const at = new Date(context.clock.now()).toISOString()
  try {
    return {
      delivered: true,
      words: await sendMessage(channel, { id: randomUUID(), kind: 'test', at, entries: [], lines }, context),
    }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return { delivered: false, words: error.hint === undefined ? error.message : `${error.message}; ${error.hint}` }
  }
}

async function dispatch(channel: Channel, message: Message, { clock, signal }: { clock: Clock; signal: AbortSignal }) {
  switch (channel.kind) {
    case 'email':
      return await sendEmail(channel, message, signal)
    case 'webhook':
      return await postWebhook(channel, message, { clock, signal })
    case 'slack':
      return await postSlack(channel, message, signal)
    default:
      return channel satisfies never
  }
}
