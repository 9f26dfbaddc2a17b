import { claimDelivery, recordAttempt, type ClaimedDelivery, type DeliveryEnd } from '../catalog/notices.ts'
import { isStoreAway } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { Failure, type FailureCode } from '../errors.ts'
import type { Channel } from './channel.ts'
import { wordsOf } from './message.ts'
import { messageFor } from './outbox.ts'
import { GIVE_UP_AFTER_MS, retryDelayMs } from './retry-delay.ts'
import { SEND_TIMEOUT_MS, sendMessage } from './send.ts'
import type { StoreReach } from './store-reach.ts'

/** A claim is good for longer than any attempt takes, so that nobody else sends at the same time. */
const LEASE_MS = SEND_TIMEOUT_MS + 30_000
const RECORD_AGAIN_AFTER_MS = 1_000

export interface DeliveryContext {
  readonly reach: StoreReach
  readonly node: string
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** What became of an attempt, for whoever keeps records of it. */
export interface DeliveryReport extends Omit<DeliveryEnd, 'nextAttemptAt'> {
  readonly noticeId: string
  readonly channel: string
  readonly attempts: number
  /** Of an attempt that failed. */
  readonly failure?: FailureCode
}

type AttemptEnd = DeliveryEnd & { readonly failure?: FailureCode }

/** Makes one attempt at the next delivery that is due on a channel; undefined when there is none. */
export async function attemptDelivery(context: DeliveryContext, channel: Channel): Promise<DeliveryReport | undefined> {
  const { reach, node, clock } = context
  const begun = clock.now()
  const claim = { channel: channel.name, node, now: new Date(begun), until: new Date(begun + LEASE_MS) }
  const delivery = await reach.use(async (store) => await claimDelivery(store, claim))
  if (delivery === undefined) return undefined
  const end = await attempt(context, channel, delivery)
  await record(context, delivery, end)
  const { nextAttemptAt: _next, ...rest } = end
  return { noticeId: delivery.noticeId, channel: channel.name, attempts: delivery.attempts, ...rest }
}

/**
 * Records what became of an attempt, and waits for a store that is away: until then nothing else is claimed for this channel. When we end before, the message comes once
 * more, with the same id.
 */
async function record({ reach, clock, signal }: DeliveryContext, delivery: ClaimedDelivery, end: DeliveryEnd): Promise<void> {
  for (const until = clock.now() + GIVE_UP_AFTER_MS; ; await clock.sleep(RECORD_AGAIN_AFTER_MS, signal)) {
    try {
      await reach.use(async (store) => recordAttempt(store, delivery, end))
      return
    } catch (error) {
      if (!isStoreAway(error) || signal.aborted || clock.now() > until) throw error
    }
  }
}

async function attempt({ clock, signal }: DeliveryContext, channel: Channel, delivery: ClaimedDelivery): Promise<AttemptEnd> {
  const { content, severities, attempts, madeAt } = delivery
  try {
    const outcome = await sendMessage(channel, messageFor(content, severities), { clock, signal })
    const at = new Date(clock.now())
    return { state: 'sent', outcome, at, nextAttemptAt: at }
  } catch (error) {
    const now = clock.now()
    const at = new Date(now)
    // We are told to end: the next start, or another node, goes on at once.
    if (signal.aborted) return { state: 'waiting', outcome: 'interrupted', at, nextAttemptAt: at }
    const failure = asFailure(error)
    const nextAt = now + retryDelayMs(attempts, failure)
    const state = nextAt > madeAt.getTime() + GIVE_UP_AFTER_MS ? 'given-up' : 'waiting'
    return { state, outcome: failure.message, at, nextAttemptAt: new Date(nextAt), failure: failure.code }
  }
}

/** Something that nobody foresaw may pass: it is tried again, and shown. */
function asFailure(error: unknown): Failure {
  if (error instanceof Failure) return error
  return new Failure('CHANNEL_UNREACHABLE', wordsOf(`not sent: ${error instanceof Error ? error.name : 'unknown error'}`), {
    cause: error,
  })
}
