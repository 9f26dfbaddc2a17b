import { Failure } from '../errors.ts'

/** A position in the write-ahead log: a byte offset from the cluster's first WAL byte. PostgreSQL: `XLogRecPtr`. */
export type Lsn = bigint

/** Reads PostgreSQL's text form, `16/B374D848`. Throws ARGUMENTS_INVALID. */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text)
  if (match === null) {
    throw new Failure('ARGUMENTS_INVALID', `"${text}" is not an LSN`, { hint: 'an LSN looks like 16/B374D848' })
  }
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)
}

/** PostgreSQL's text form, as `pg_lsn` prints it. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`
}
