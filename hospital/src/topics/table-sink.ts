import type pg from 'pg'
import type { PartitionEnd, PlacedRecord, TopicRecord, TopicSettings, TopicSink } from './sink.ts'
import { retentionMs, TOPIC_NAMES, type TopicName } from './topics.ts'

const ADD = `
  with numbered as (
    select topic, position, row_number() over (partition by topic order by n) - 1 as n
    from unnest($1::text[], $2::bigint[]) with ordinality as r(topic, position, n)
  ), moved as (
    update hospital.published_topics t set next_offset = t.next_offset + c.records
    from (select topic, count(*) as records from numbered group by topic) c where c.topic = t.topic
    returning t.topic, t.next_offset - c.records as first_offset
  )
  insert into hospital.published_records (topic, "offset", position)
  select n.topic, m.first_offset + n.n, n.position from numbered n join moved m on m.topic = n.topic`

const ENDS = `
  select t.topic, t.next_offset, coalesce(f."offset", t.next_offset) as start_offset, l."offset", l.position, e.stream, e.id
  from hospital.published_topics t
  left join lateral (select "offset" from hospital.published_records r where r.topic = t.topic order by "offset" limit 1) f on true
  left join lateral (
    select "offset", position from hospital.published_records r where r.topic = t.topic order by "offset" desc limit 1) l on true
  left join hospital.events e on e.position = l.position`

const READ_BACK = `
  select * from (
    select r.topic, r."offset", r.position, e.stream, e.id
    from hospital.published_records r join hospital.events e on e.position = r.position
    where r.topic = $1 and r."offset" < $2 order by r."offset" desc limit $3
  ) newest order by "offset"`

interface PlacedRow {
  readonly topic: TopicName
  readonly offset: string
  readonly position: string
  readonly stream: string
  readonly id: string
}

interface EndRow {
  readonly topic: TopicName
  readonly next_offset: string
  readonly start_offset: string
  readonly offset: string | null
  readonly position: string | null
  readonly stream: string | null
  readonly id: string | null
}

/** Topics as tables of the hospital's own database, one partition each, for a hospital that has no broker. Read them from the view `published`. */
export class TableSink implements TopicSink {
  readonly place = 'the table "published"'
  readonly #client: pg.ClientBase

  /** The client's user has to be `hospital_worker`; it stays the caller's to close. */
  constructor(client: pg.ClientBase) {
    this.#client = client
  }

  async prepare(): Promise<readonly TopicName[]> {
    const { rows } = await this.#client.query<{ topic: TopicName }>(
      `insert into hospital.published_topics as t (topic, retention_ms) select * from unnest($1::text[], $2::bigint[])
       on conflict (topic) do update set retention_ms = excluded.retention_ms where t.retention_ms <> excluded.retention_ms
       returning topic`,
      [TOPIC_NAMES, TOPIC_NAMES.map(retentionMs)],
    )
    return rows.map(({ topic }) => topic)
  }

  async settings(): Promise<readonly TopicSettings[]> {
    const { rows } = await this.#client.query<{ topic: string; retention_ms: string }>(
      'select topic, retention_ms from hospital.published_topics',
    )
    const actual = new Map(rows.map((row) => [row.topic, row.retention_ms]))
    return TOPIC_NAMES.map((topic) => ({
      topic,
      name: topic,
      partitions: actual.has(topic) ? 1 : 0,
      declared: { 'retention.ms': String(retentionMs(topic)) },
      actual: actual.has(topic) ? { 'retention.ms': actual.get(topic)! } : null,
    }))
  }

  async ends(): Promise<readonly PartitionEnd[]> {
    const { rows } = await this.#client.query<EndRow>(ENDS)
    return rows.map((row) => ({
      topic: row.topic,
      partition: 0,
      startOffset: BigInt(row.start_offset),
      nextOffset: BigInt(row.next_offset),
      ...(row.offset === null ? {} : { last: placed(row as PlacedRow) }),
    }))
  }

  async readBack(end: Pick<PartitionEnd, 'topic'>, before: bigint, limit: number): Promise<readonly PlacedRecord[]> {
    const { rows } = await this.#client.query<PlacedRow>(READ_BACK, [end.topic, String(before), limit])
    return rows.map(placed)
  }

  partitionOf(): number {
    return 0
  }

  async publish(records: readonly TopicRecord[]): Promise<void> {
    await this.#client.query({
      name: 'publish to table',
      text: ADD,
      values: [records.map(({ topic }) => topic), records.map(({ position }) => String(position))],
    })
  }

  async expire(): Promise<void> {
    await this.#client.query(
      `delete from hospital.published_records r using hospital.published_topics t
       where r.topic = t.topic and r.published_at < now() - make_interval(secs => t.retention_ms / 1000.0)`,
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    return undefined
  }
}

function placed(row: PlacedRow): PlacedRecord {
  const { topic, offset, position, stream, id } = row
  return { topic, partition: 0, offset: BigInt(offset), key: stream, id, position: BigInt(position) }
}
