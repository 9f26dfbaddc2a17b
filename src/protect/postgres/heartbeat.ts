import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { CanaryRound } from './canary-round.ts'
import type { PostgresComponent } from './component.ts'
import { HeartbeatSession, type Beat } from './heartbeat-session.ts'
import { choosePrimary, listMembers, surveyMembers, type Member } from './members.ts'
import { sleepUnlessAborted } from './sleep.ts'

const BEAT_EVERY_MS = 1000
const RETRY_FIRST_MS = 1000
const RETRY_MAX_MS = 30_000
/** Until somebody has made the table there is nothing to try. */
const MISSING_RETRY_MS = 60_000
const LOOK_AT_MEMBERS_MS = 10_000

export interface HeartbeatOptions {
  readonly component: Pick<PostgresComponent, 'name' | 'connection' | 'stream'>
  readonly clock: Clock
  readonly signal: AbortSignal
  /** Renewed once an hour, beside it; without, none are. */
  readonly canaries?: CanaryRound
  readonly everyMs?: number
  readonly membersEveryMs?: number
  readonly onBeat: (beat: Beat) => void
  /** It cannot beat, and tries again, less and less often; a beat says that it is over. */
  readonly onTrouble: (failure: Failure) => void
}

/**
 * Writes a heartbeat to the primary once a second until the signal aborts, over one connection; with several `hosts` it goes after the primary. A
 * server that is away, stalls, or has no heartbeat table is told, and tried again.
 */
export async function runHeartbeat(options: HeartbeatOptions): Promise<void> {
  const { clock, signal } = options
  let failures = 0
  const onBeat = (beat: Beat) => {
    failures = 0
    options.onBeat(beat)
  }
  while (!signal.aborted) {
    try {
      await beatOnPrimary({ ...options, onBeat })
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof Failure)) throw error
      options.onTrouble(error)
      const retryMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** failures)
      failures = Math.min(failures + 1, 10)
      await sleepUnlessAborted(clock, error.code === 'HEARTBEAT_MISSING' ? MISSING_RETRY_MS : retryMs, signal)
    }
  }
}

/** Until the connection is lost or another member is the primary. */
async function beatOnPrimary(options: HeartbeatOptions): Promise<void> {
  const members = listMembers(options.component.connection, options.component.stream.hosts)
  const member = await findPrimary(members, options.signal)
  const superseded = new AbortController()
  const signal = AbortSignal.any([options.signal, superseded.signal])
  const { component, membersEveryMs = LOOK_AT_MEMBERS_MS } = options
  await using session = await HeartbeatSession.connect({
    component: component.name,
    connectionString: member.connectionString,
    signal: options.signal,
  })
  const watching = watchForPromotion({ ...options, members, member, signal, membersEveryMs }).finally(() => superseded.abort())
  // Awaited below, when the beat at hand is over.
  watching.catch(() => undefined)
  try {
    await beatUntilAborted(session, { ...options, signal })
  } finally {
    superseded.abort()
    await watching
  }
}

async function beatUntilAborted(session: HeartbeatSession, options: HeartbeatOptions): Promise<void> {
  const { clock, signal, everyMs = BEAT_EVERY_MS } = options
  while (!signal.aborted) {
    const beat = await session.beat(clock)
    options.onBeat(beat)
    if (options.canaries !== undefined) await session.renewCanaries(options.canaries, beat)
    const tookMs = clock.now() - beat.sentMs
    await sleepUnlessAborted(clock, Math.max(0, Math.min(everyMs, everyMs - tookMs)), signal)
  }
}

/** Throws POSTGRES_UNREACHABLE when no member takes writes, PRIMARY_UNCLEAR when several do and neither follows the other. */
export async function findPrimary(members: readonly Member[], signal: AbortSignal): Promise<Member> {
  const [only, ...others] = members
  if (others.length === 0) return only!
  const { primary } = await choosePrimary(await surveyMembers(members, signal), async () => false)
  return primary
}

interface Watch extends HeartbeatOptions {
  readonly members: readonly Member[]
  readonly member: Member
  readonly membersEveryMs: number
}

/** Beside the beats, because a member that does not answer takes seconds: until another one is the primary, or the signal aborts. */
async function watchForPromotion({ members, member, clock, signal, membersEveryMs }: Watch): Promise<void> {
  while (!signal.aborted) {
    await sleepUnlessAborted(clock, membersEveryMs, signal)
    if (members.length === 1 || signal.aborted) continue
    try {
      const primary = await findPrimary(members, signal)
      if (primary.host !== member.host) return
    } catch (error) {
      // None or two: the one that we write to still takes our beats, and whoever streams tells the trouble.
      if (!signal.aborted && !(error instanceof Failure)) throw error
    }
  }
}
