import type { TopicName } from './topics.ts'

/** What is published of one event to one topic. */
export interface TopicRecord {
  readonly topic: TopicName
  readonly partition: number
  /** The stream: so the versions of one thing stay in order, in one partition. */
  readonly key: string
  /** JSON, by hospital.topic_value. */
  readonly value: string
  readonly id: string
  readonly position: bigint
}

/** A record as it was found in a topic. */
export interface PlacedRecord {
  readonly topic: TopicName
  readonly partition: number
  readonly offset: bigint
  readonly key: string
  readonly id: string
  readonly position: bigint
}

/** How far one partition is. */
export interface PartitionEnd {
  readonly topic: TopicName
  readonly partition: number
  /** The offset of its oldest record, and the one that its next record gets; equal when it has none. */
  readonly startOffset: bigint
  readonly nextOffset: bigint
  readonly last?: PlacedRecord
}

/** A topic's settings as declared in topics.ts, and as the sink has them; null where there is no such topic. */
export interface TopicSettings {
  readonly topic: TopicName
  readonly name: string
  readonly partitions: number
  readonly declared: Readonly<Record<string, string>>
  readonly actual: Readonly<Record<string, string | null>> | null
}

/** Where events are published: a broker, or tables of the database. Whoever opens it closes it. */
export interface TopicSink extends AsyncDisposable {
  /** For people: "kafka at 127.0.0.1:9092". */
  readonly place: string
  /** Makes the topics that are missing, and corrects settings that differ from the declared ones. Gives the topics that it had to touch. */
  prepare(): Promise<readonly TopicName[]>
  settings(): Promise<readonly TopicSettings[]>
  /** Of all partitions of the topics that there are. Also tells `publish` at which offsets the next records have to land. */
  ends(): Promise<readonly PartitionEnd[]>
  /** The records before an offset, oldest first, `limit` at most; none when there are none. */
  readBack(
    end: Pick<PartitionEnd, 'topic' | 'partition' | 'startOffset'>,
    before: bigint,
    limit: number,
  ): Promise<readonly PlacedRecord[]>
  partitionOf(topic: TopicName, key: string): number
  /** When it returns, the records are as durable as the sink makes anything, in the given order within a partition. When it throws, any of them may be. */
  publish(records: readonly TopicRecord[]): Promise<void>
  /** Removes what retention says, for a sink that does not do so by itself. */
  expire(): Promise<void>
}
