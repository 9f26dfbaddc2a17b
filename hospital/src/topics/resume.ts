import type pg from 'pg'
import { findKnownEnd, type KnownEnd } from './ahead.ts'
import type { TopicSink } from './sink.ts'
import { topicOf, type TopicName } from './topics.ts'

const SCAN_ROWS = 10_000

/** Where publication goes on. */
export interface Progress {
  /** All events up to this position are published. */
  after: bigint
  /** Of each partition, the position up to which it has its events: it may be further than `after`, when a publisher was killed in a batch. */
  readonly reached: Map<string, bigint>
  /** Records that the sink has of events that this database does not have. */
  readonly ahead: number
}

/** Asks the sink how far it is, and finds the first event that one of its partitions lacks. `upto`: the last settled position. */
export async function resume(client: pg.ClientBase, sink: TopicSink, upto: bigint): Promise<Progress> {
  const ends: KnownEnd[] = []
  for (const end of await sink.ends()) ends.push(await findKnownEnd(client, sink, end))
  const audited = highest(ends.filter(({ end }) => end.topic === 'audit').map(({ known }) => known?.position ?? 0n))
  const reached = new Map<string, bigint>()
  for (const each of ends) reached.set(`${each.end.topic}/${each.end.partition}`, positionOf(each, audited))
  const progress = { after: lowest([...reached.values()]), reached, ahead: ends.reduce((sum, { ahead }) => sum + ahead, 0) }
  progress.after = await beforeFirstNeeded(client, sink, progress, upto)
  return progress
}

/** Whether this partition still lacks the event at this position. */
export function lacks(progress: Pick<Progress, 'reached'>, target: string, position: bigint): boolean {
  return position > (progress.reached.get(target) ?? 0n)
}

export function targetsOf(sink: TopicSink, stream: string): readonly { topic: TopicName; partition: number }[] {
  const topic = topicOf(stream)
  const topics: readonly TopicName[] = topic === undefined ? ['audit'] : [topic, 'audit']
  return topics.map((each) => ({ topic: each, partition: sink.partitionOf(each, stream) }))
}

function positionOf({ end, known, ahead }: KnownEnd, audited: bigint): bigint {
  if (known !== undefined) return known.position
  // Retention removed what it had, so nothing newer was published there. The audit topic, which is written last, says up to where that is certain.
  const expired = end.startOffset > 0n && end.topic !== 'audit'
  return expired && ahead === 0 ? audited : 0n
}

/** Reads no payloads: this goes over all events behind the partition that was written longest ago. */
async function beforeFirstNeeded(
  client: pg.ClientBase,
  sink: TopicSink,
  { after, reached }: Pick<Progress, 'after' | 'reached'>,
  upto: bigint,
): Promise<bigint> {
  let scanned = after
  for (;;) {
    const { rows } = await client.query<{ position: string; stream: string }>(
      'select position, stream from hospital.events where position > $1 and position <= $2 order by position limit $3',
      [String(scanned), String(upto), SCAN_ROWS],
    )
    for (const { position, stream } of rows) {
      const needed = targetsOf(sink, stream).some((each) =>
        lacks({ reached }, `${each.topic}/${each.partition}`, BigInt(position)),
      )
      if (needed) return scanned
      scanned = BigInt(position)
    }
    if (rows.length < SCAN_ROWS) return scanned
  }
}

function highest(positions: readonly bigint[]): bigint {
  return positions.reduce((one, other) => (one > other ? one : other), 0n)
}

function lowest(positions: readonly bigint[]): bigint {
  return positions.reduce((one, other) => (one < other ? one : other), positions[0] ?? 0n)
}
