import { randomBytes } from 'node:crypto'
import type { Finding } from '../check-list.ts'
import type { CheckedCopy, ContentCheck } from './content-check.ts'

/**
 * A write that is committed, and read back by another session: from here on the copy could serve. It is a large object, so that no statement defines anything, and nothing of the
 * cluster (a trigger, an event trigger) is called.
 */
export const firstTransaction: ContentCheck = {
  name: 'first transaction',
  expected: 'a write is committed, and another session reads it back',
  look,
}

async function look({ server }: CheckedCopy): Promise<Finding> {
  const written = randomBytes(32)
  const oid = await server.anySession(async (client) => {
    const { rows } = await client.query<{ oid: number }>('select lo_from_bytea(0, $1) as oid', [written])
    return rows[0]!.oid
  })
  const read = await server.anySession(async (client) => {
    const { rows } = await client.query<{ bytes: Buffer }>('select lo_get($1::oid) as bytes', [oid])
    await client.query('select lo_unlink($1::oid)', [oid])
    return rows[0]!.bytes
  })
  return read.equals(written)
    ? { verdict: 'verified', found: '32 bytes, committed and read back' }
    : { verdict: 'failed', found: 'what was read back is not what was committed' }
}
