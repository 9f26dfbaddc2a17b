import {
  Admin,
  compatibilityPartitioner,
  ConfigResourceTypes,
  Consumer,
  IncrementalAlterConfigOperationTypes,
  ListOffsetTimestamps,
  Producer,
  stringSerializers,
  type ClusterMetadata,
} from '@platformatic/kafka'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import type { PartitionEnd, PlacedRecord, TopicRecord, TopicSettings, TopicSink } from './sink.ts'
import { retentionMs, TOPIC_NAMES, type TopicName } from './topics.ts'

/** More than one, so that consumers can share a topic; not many, because a start reads the end of each. */
const PARTITIONS = 3
const REPLICAS_WANTED = 3
/** One event may be as large as a request's body is (server.ts), and is published whole. */
const RECORD_BYTES_MAX = 32 * 1024 * 1024
const TIMEOUT_MS = 15_000
const FETCH_WAIT_MS = 500
const FETCHES_MAX = 1000
const ACKS_ALL = -1
const LISTED_POLL_MS = 100
const LISTED_POLLS_MAX = 100
const ERROR_DEPTH = 6

export interface KafkaOptions {
  /** "host:port" of one broker or more. */
  readonly brokers: readonly string[]
  /** Before each topic's name. */
  readonly prefix: string
}

/** Topics of an Apache Kafka (2.8 or later, for topic ids). Every failure is the caller's: nothing is tried again in here, where nobody would look how far the broker is. */
export class KafkaSink implements TopicSink {
  readonly place: string
  readonly #prefix: string
  readonly #admin: Admin
  readonly #consumer: Consumer
  readonly #producer: Producer<string, string, string, string>
  /** Of each partition, the offset that its next record has to get. */
  readonly #next = new Map<string, bigint>()
  readonly #partitions = new Map<TopicName, number>()

  constructor({ brokers, prefix }: KafkaOptions) {
    const options = { clientId: 'hospital-topics', bootstrapBrokers: [...brokers], retries: 0, timeout: TIMEOUT_MS }
    this.place = `kafka at ${brokers.join(',')}`
    this.#prefix = prefix
    this.#admin = new Admin(options)
    // The group is never joined: partitions are read one by one.
    this.#consumer = new Consumer({ ...options, groupId: `hospital-topics-${randomUUID()}` })
    this.#producer = new Producer({ ...options, serializers: stringSerializers, repeatOnStaleMetadata: false })
  }

  async prepare(): Promise<readonly TopicName[]> {
    const touched: TopicName[] = []
    for (const { topic, name, declared, actual } of await this.settings()) {
      if (actual === null) {
        const { brokers } = await this.#metadata([])
        const replicas = Math.min(REPLICAS_WANTED, brokers.size)
        // With three copies, one broker may be away, and what is acknowledged is still on two.
        const inSync = { 'min.insync.replicas': replicas === REPLICAS_WANTED ? '2' : '1' }
        const configs = Object.entries({ ...declared, ...inSync }).map(([key, value]) => ({ name: key, value }))
        await this.#admin.createTopics({ topics: [name], partitions: PARTITIONS, replicas, configs }).catch((error: unknown) => {
          // A broker that has just made it may not list it yet.
          if (!/TOPIC_ALREADY_EXISTS/.test(inspect(error, { depth: ERROR_DEPTH }))) throw error
        })
        touched.push(topic)
        continue
      }
      const different = Object.entries(declared).filter(([key, value]) => actual[key] !== value)
      if (different.length === 0) continue
      await this.#admin.incrementalAlterConfigs({
        resources: [
          {
            resourceType: ConfigResourceTypes.TOPIC,
            resourceName: name,
            configs: different.map(([key, value]) => ({
              name: key,
              configOperation: IncrementalAlterConfigOperationTypes.SET,
              value,
            })),
          },
        ],
      })
      touched.push(topic)
    }
    await this.#untilListed()
    return touched
  }

  async settings(): Promise<readonly TopicSettings[]> {
    const there = await this.#topicsThere()
    const results: TopicSettings[] = []
    for (const topic of TOPIC_NAMES) {
      const name = this.#nameOf(topic)
      const declared = declaredSettings(topic)
      const partitions = there.get(topic) ?? 0
      results.push({ topic, name, partitions, declared, actual: partitions === 0 ? null : await this.#configs(name, declared) })
    }
    return results
  }

  async ends(): Promise<readonly PartitionEnd[]> {
    const there = await this.#topicsThere()
    this.#next.clear()
    const ends: PartitionEnd[] = []
    for (const [topic, partitions] of there) {
      this.#partitions.set(topic, partitions)
      const starts = await this.#offsets(topic, partitions, ListOffsetTimestamps.EARLIEST)
      const nexts = await this.#offsets(topic, partitions, ListOffsetTimestamps.LATEST)
      for (let partition = 0; partition < partitions; partition += 1) {
        const [startOffset, nextOffset] = [starts.get(partition)!, nexts.get(partition)!]
        const [last] = nextOffset > startOffset ? await this.readBack({ topic, partition, startOffset }, nextOffset, 1) : []
        this.#next.set(`${topic}/${partition}`, nextOffset)
        ends.push({ topic, partition, startOffset, nextOffset, ...(last === undefined ? {} : { last }) })
      }
    }
    return ends
  }

  async readBack(
    end: Pick<PartitionEnd, 'topic' | 'partition' | 'startOffset'>,
    before: bigint,
    limit: number,
  ): Promise<readonly PlacedRecord[]> {
    const from = before - BigInt(limit) > end.startOffset ? before - BigInt(limit) : end.startOffset
    const records: PlacedRecord[] = []
    let offset = from
    for (let fetches = 0; offset < before; fetches += 1) {
      if (fetches === FETCHES_MAX)
        throw new Error(`${this.#nameOf(end.topic)}/${end.partition} gives nothing at offset ${offset}`)
      const found = await this.#fetch(end, offset)
      for (const each of found) if (each.offset >= offset && each.offset < before) records.push(each)
      offset = found.length === 0 ? offset : found.at(-1)!.offset + 1n
    }
    return records
  }

  partitionOf(topic: TopicName, key: string): number {
    // As Kafka's own clients place a key.
    return compatibilityPartitioner({ topic }, Buffer.from(key)) % (this.#partitions.get(topic) ?? PARTITIONS)
  }

  async publish(records: readonly TopicRecord[]): Promise<void> {
    if (records.length === 0) return
    const messages = records.map(({ topic, partition, key, value, id, position }) => ({
      topic: this.#nameOf(topic),
      partition,
      key,
      value,
      headers: { id, position: String(position) },
    }))
    const { offsets } = await this.#producer.send({ messages, acks: ACKS_ALL })
    const counts = new Map<string, bigint>()
    for (const { topic, partition } of records) {
      const place = `${topic}/${partition}`
      counts.set(place, (counts.get(place) ?? 0n) + 1n)
    }
    for (const [place, count] of counts) {
      const expected = this.#next.get(place)
      const landed = offsets?.find(({ topic, partition }) => place === `${topic.slice(this.#prefix.length)}/${partition}`)?.offset
      this.#next.set(place, (landed ?? 0n) + count)
      // The broker lost records, or somebody else publishes: how far it is has to be asked again.
      if (landed !== expected) throw new Error(`records for ${place} landed at offset ${landed}, not ${expected}`)
    }
  }

  async expire(): Promise<void> {
    // The broker does.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([this.#admin.close(), this.#consumer.close(true), this.#producer.close(true)])
  }

  #nameOf(topic: TopicName): string {
    return `${this.#prefix}${topic}`
  }

  async #topicsThere(): Promise<Map<TopicName, number>> {
    const names = new Set(await this.#admin.listTopics())
    const there = TOPIC_NAMES.filter((topic) => names.has(this.#nameOf(topic)))
    if (there.length === 0) return new Map()
    const { topics } = await this.#metadata(there)
    return new Map(there.map((topic) => [topic, topics.get(this.#nameOf(topic))?.partitionsCount ?? 0]))
  }

  async #untilListed(): Promise<void> {
    for (let asked = 0; (await this.#topicsThere()).size < TOPIC_NAMES.length; asked += 1) {
      if (asked === LISTED_POLLS_MAX) throw new Error(`${this.place} does not list all topics that were made`)
      await sleep(LISTED_POLL_MS)
    }
  }

  async #metadata(topics: readonly TopicName[]): Promise<ClusterMetadata> {
    return await this.#admin.metadata({ topics: topics.map((topic) => this.#nameOf(topic)), forceUpdate: true })
  }

  async #configs(name: string, declared: Readonly<Record<string, string>>): Promise<Record<string, string | null>> {
    const [description] = await this.#admin.describeConfigs({
      resources: [{ resourceType: ConfigResourceTypes.TOPIC, resourceName: name, configurationKeys: Object.keys(declared) }],
    })
    return Object.fromEntries((description?.configs ?? []).map((each) => [each.name, each.value ?? null]))
  }

  async #offsets(topic: TopicName, partitions: number, timestamp: bigint): Promise<Map<number, bigint>> {
    const wanted = Array.from({ length: partitions }, (_, partitionIndex) => ({ partitionIndex, timestamp }))
    const [listed] = await this.#admin.listOffsets({ topics: [{ name: this.#nameOf(topic), partitions: wanted }] })
    return new Map((listed?.partitions ?? []).map((each) => [each.partitionIndex, each.offset]))
  }

  /** Whole batches, from the one that holds the offset: also records before it. */
  async #fetch({ topic, partition }: Pick<PartitionEnd, 'topic' | 'partition'>, offset: bigint): Promise<PlacedRecord[]> {
    const { topics } = await this.#metadata([topic])
    const found = topics.get(this.#nameOf(topic))!
    this.#consumer.topics.track(this.#nameOf(topic))
    const response = await this.#consumer.fetch({
      node: found.partitions[partition]!.leader,
      maxWaitTime: FETCH_WAIT_MS,
      topics: [
        {
          topicId: found.id,
          partitions: [
            { partition, fetchOffset: offset, currentLeaderEpoch: -1, lastFetchedEpoch: -1, partitionMaxBytes: RECORD_BYTES_MAX },
          ],
        },
      ],
    })
    const batches = response.responses.flatMap((each) => each.partitions.flatMap(({ records }) => records ?? []))
    return batches.flatMap(({ firstOffset, records }) =>
      records.map(({ offsetDelta, key, headers }) => {
        const named = new Map(headers.map(([name, value]) => [String(name), String(value)]))
        return {
          topic,
          partition,
          offset: firstOffset + BigInt(offsetDelta),
          key: String(key),
          id: named.get('id') ?? '',
          position: positionIn(named.get('position')),
        }
      }),
    )
  }
}

/** A record that is none of ours has no position, and so is of no event that we know. */
function positionIn(header: string | undefined): bigint {
  return header !== undefined && /^\d{1,18}$/.test(header) ? BigInt(header) : -1n
}

function declaredSettings(topic: TopicName): Readonly<Record<string, string>> {
  return {
    'retention.ms': String(retentionMs(topic)),
    // Compaction would keep only the last version of each stream, and a size limit would remove what retention promises.
    'cleanup.policy': 'delete',
    'retention.bytes': '-1',
    'max.message.bytes': String(RECORD_BYTES_MAX),
  }
}
