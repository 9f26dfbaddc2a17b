import type pg from 'pg'
import { KafkaSink } from './kafka-sink.ts'
import type { TopicSink } from './sink.ts'
import { TableSink } from './table-sink.ts'

/** Where a hospital publishes its topics. */
export interface TopicPlace {
  /** "host:port" of Kafka's brokers; none means the tables of the database. */
  readonly kafka?: readonly string[]
  readonly topicPrefix: string
}

/** The client is for a sink in the database; a broker needs none. */
export function sinkOpener({ kafka = [], topicPrefix }: TopicPlace): (client: pg.ClientBase) => TopicSink {
  return (client) => (kafka.length === 0 ? new TableSink(client) : new KafkaSink({ brokers: kafka, prefix: topicPrefix }))
}
