import type pg from 'pg'
import { findKnownEnd, type KnownEnd } from './ahead.ts'
import { workerClient } from './session.ts'
import type { TopicSettings, TopicSink } from './sink.ts'
import { TOPIC_NAMES, type TopicName } from './topics.ts'

export interface TopicStatus {
  readonly topic: TopicName
  readonly name: string
  readonly partitions: number
  readonly records: bigint
  /** The greatest position that it has of this database's events; 0 for none. */
  readonly position: bigint
  readonly settings: TopicSettings
  /** Names of settings that are not as declared. */
  readonly differing: readonly string[]
}

/** Records of events that the database does not have, and that nobody has acknowledged. */
export interface AheadStatus {
  readonly topic: string
  readonly partition: number
  readonly records: number
  readonly firstOffset: string
  readonly lastOffset: string
  readonly firstPosition: string
  readonly lastPosition: string
  readonly detectedAt: Date
  /** Of some of them, for a person to look at; all are in the table `records_ahead`. */
  readonly ids: readonly string[]
}

export interface TopicsStatus {
  readonly place: string
  /** The newest event's position. */
  readonly position: bigint
  /** Events that the audit topic does not have yet. */
  readonly behind: bigint
  readonly topics: readonly TopicStatus[]
  readonly ahead: readonly AheadStatus[]
  /** Every topic is there, as declared, and nothing is ahead of the database. */
  readonly good: boolean
}

const IDS_SHOWN = 5

/** Looks at the sink and at the database, and changes neither, but for writing down records that are ahead of the database. */
export async function topicsStatus(options: {
  readonly connectionString: string
  readonly openSink: (client: pg.ClientBase) => TopicSink
}): Promise<TopicsStatus> {
  await using stack = new AsyncDisposableStack()
  const client = await workerClient(options.connectionString, 'hospital topics status')
  stack.defer(async () => client.end())
  const sink = stack.use(options.openSink(client))
  const settings = await sink.settings()
  const position = await newestPosition(client)
  const ends: KnownEnd[] = []
  for (const end of await sink.ends()) ends.push(await findKnownEnd(client, sink, end))
  const topics = TOPIC_NAMES.map((topic): TopicStatus => {
    const own = ends.filter((each) => each.end.topic === topic)
    const found = settings.find((each) => each.topic === topic)!
    return {
      topic,
      name: found.name,
      partitions: found.partitions,
      records: own.reduce((sum, { end }) => sum + end.nextOffset - end.startOffset, 0n),
      position: own.reduce((most, { known }) => (known !== undefined && known.position > most ? known.position : most), 0n),
      settings: found,
      differing: Object.keys(found.declared).filter((name) => found.actual?.[name] !== found.declared[name]),
    }
  })
  const ahead = await unacknowledged(client)
  const behind = await eventsBehind(client, topics.find(({ topic }) => topic === 'audit')!.position)
  const good = ahead.length === 0 && topics.every(({ differing }) => differing.length === 0)
  return { place: sink.place, position, behind, topics, ahead, good }
}

/** A person has dealt with all records that are ahead: they stay written down, and are no longer reported. Gives how many they are. */
export async function acknowledgeAhead(connectionString: string, person: string): Promise<number> {
  const client = await workerClient(connectionString, 'hospital topics acknowledge')
  try {
    const { rowCount } = await client.query(
      'update hospital.records_ahead set acknowledged_by = $1, acknowledged_at = now() where acknowledged_at is null',
      [person],
    )
    return rowCount ?? 0
  } finally {
    await client.end()
  }
}

async function newestPosition(client: pg.ClientBase): Promise<bigint> {
  const { rows } = await client.query<{ position: string | null }>('select max(position) as position from hospital.events')
  return BigInt(rows[0]?.position ?? 0)
}

async function eventsBehind(client: pg.ClientBase, position: bigint): Promise<bigint> {
  const { rows } = await client.query<{ events: string }>('select count(*) as events from hospital.events where position > $1', [
    String(position),
  ])
  return BigInt(rows[0]!.events)
}

async function unacknowledged(client: pg.ClientBase): Promise<readonly AheadStatus[]> {
  const { rows } = await client.query<AheadStatus>(
    `select topic, partition, count(*)::integer as records, min("offset") as "firstOffset", max("offset") as "lastOffset",
       min(position) as "firstPosition", max(position) as "lastPosition", min(detected_at) as "detectedAt",
       (array_agg(event_id order by "offset"))[1:$1] as ids
     from hospital.records_ahead where acknowledged_at is null group by topic, partition order by topic, partition`,
    [IDS_SHOWN],
  )
  return rows
}
