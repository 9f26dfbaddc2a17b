import type pg from 'pg'
import type { PartitionEnd, PlacedRecord, TopicSink } from './sink.ts'

const CHUNK = 500

/** What the sink has of one partition that this database also has. */
export interface KnownEnd {
  readonly end: PartitionEnd
  /** The newest record whose event is in this database; undefined when there is none among those that retention has left. */
  readonly known?: PlacedRecord
  /** Records behind it, of events that this database does not have. */
  readonly ahead: number
}

/**
 * Compares the end of a partition with the database, by the events' ids: a position may have been given again since a database was restored to an earlier
 * instant. Records that are ahead of the database are written down in `records_ahead`, once.
 */
export async function findKnownEnd(client: pg.ClientBase, sink: TopicSink, end: PartitionEnd): Promise<KnownEnd> {
  let ahead = 0
  let before = end.nextOffset
  let limit = 1
  while (before > end.startOffset) {
    const records = await sink.readBack(end, before, limit)
    if (records.length === 0) break
    const events = await eventsAt(client, records)
    const index = records.findLastIndex(({ id, position }) => events.get(position) === id)
    const unknown = records.slice(index + 1)
    await writeDown(client, unknown)
    ahead += unknown.length
    if (index >= 0) return { end, known: records[index]!, ahead }
    before = records[0]!.offset
    // The last record alone says in nearly every start that nothing is ahead.
    limit = CHUNK
  }
  return { end, ahead }
}

async function eventsAt(client: pg.ClientBase, records: readonly PlacedRecord[]): Promise<Map<bigint, string>> {
  const { rows } = await client.query<{ position: string; id: string }>(
    'select position, id from hospital.events where position = any($1::bigint[])',
    [records.map(({ position }) => String(position))],
  )
  return new Map(rows.map(({ position, id }) => [BigInt(position), id]))
}

async function writeDown(client: pg.ClientBase, records: readonly PlacedRecord[]): Promise<void> {
  if (records.length === 0) return
  await client.query(
    `insert into hospital.records_ahead (topic, partition, "offset", position, event_id, key)
     select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::text[], $6::text[])
     on conflict do nothing`,
    [
      records.map(({ topic }) => topic),
      records.map(({ partition }) => partition),
      records.map(({ offset }) => String(offset)),
      records.map(({ position }) => String(position)),
      records.map(({ id }) => id),
      records.map(({ key }) => key),
    ],
  )
}
