import type { WalMessage } from '../../postgres/wal-stream.ts'

/** Cuts messages into batches of at most `bytesMax`, or of one message. */
export function* cutBatches(messages: readonly WalMessage[], bytesMax: number): Generator<WalMessage[]> {
  let batch: WalMessage[] = []
  let held = 0
  for (const message of messages) {
    if (batch.length > 0 && held + message.bytes.length > bytesMax) {
      yield batch
      batch = []
      held = 0
    }
    batch.push(message)
    held += message.bytes.length
  }
  if (batch.length > 0) yield batch
}
