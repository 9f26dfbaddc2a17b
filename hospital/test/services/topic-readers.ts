import assert from 'node:assert/strict'
import type pg from 'pg'
import { workerClient } from '../../src/topics/session.ts'
import type { PlacedRecord, TopicSink } from '../../src/topics/sink.ts'
import { topicOf } from '../../src/topics/topics.ts'

const READ_MAX = 1_000_000

export type OpenSink = (client: pg.ClientBase) => TopicSink

/** Everything that a sink has, partition by partition, oldest first. */
export async function readAll(connectionString: string, openSink: OpenSink): Promise<readonly PlacedRecord[]> {
  await using stack = new AsyncDisposableStack()
  const client = await workerClient(connectionString, 'test')
  stack.defer(async () => client.end())
  const sink = stack.use(openSink(client))
  const records: PlacedRecord[] = []
  for (const end of await sink.ends()) records.push(...(await sink.readBack(end, end.nextOffset, READ_MAX)))
  return records
}

/**
 * Fails unless every event of the database is in the topics that it belongs to, and each partition has the versions of a stream in order: again only what it
 * had before. Gives how many records were there twice.
 */
export async function assertPublished(admin: pg.ClientBase, records: readonly PlacedRecord[]): Promise<number> {
  const { rows } = await admin.query<{ id: string; stream: string; position: string }>('select id, stream, position from events')
  const wanted = new Set(rows.flatMap(({ id, stream }) => [`audit ${id}`, `${topicOf(stream) ?? 'audit'} ${id}`]))
  const found = new Set(records.map(({ topic, id }) => `${topic} ${id}`))
  assert.deepEqual(
    [...wanted].filter((each) => !found.has(each)),
    [],
    'missing',
  )
  assert.deepEqual(
    [...found].filter((each) => !wanted.has(each)),
    [],
    'in a topic where it does not belong',
  )
  assert.ok(records.every(({ id, position }) => rows.some((row) => row.id === id) && position > 0n))
  const newest = new Map<string, bigint>()
  const seen = new Set<string>()
  let again = 0
  for (const { topic, partition, key, id, position } of records) {
    const place = `${topic}/${partition} ${key}`
    if (seen.has(`${place} ${id}`)) again += 1
    else assert.ok(position > (newest.get(place) ?? 0n), `${place}: ${position} came after ${newest.get(place)}`)
    seen.add(`${place} ${id}`)
    if (position > (newest.get(place) ?? 0n)) newest.set(place, position)
  }
  const partitions = new Map<string, number>()
  for (const { topic, partition, key } of records) {
    assert.equal(partitions.get(`${topic} ${key}`) ?? partition, partition, `${key} is in two partitions of ${topic}`)
    partitions.set(`${topic} ${key}`, partition)
  }
  return again
}
