import type { Transaction } from '../database/database.ts'
import type { StoredFile } from './document-store.ts'

/** Remembers that this facility sent a file, so that a document of this facility may name it. */
export async function rememberUpload(transaction: Transaction, facility: string, file: StoredFile): Promise<void> {
  await transaction.sql
    .insertInto('uploads')
    .values({ facility, sha256: file.sha256, size_bytes: String(file.sizeBytes), sha1: file.sha1 })
    .onConflict((conflict) => conflict.doNothing())
    .execute()
}

/** A file that this facility sent; undefined for any other. */
export async function findUpload(transaction: Transaction, sha256: string): Promise<StoredFile | undefined> {
  const row = await transaction.sql
    .selectFrom('uploads')
    .select(['sha256', 'sha1', 'size_bytes'])
    .where('sha256', '=', sha256)
    .executeTakeFirst()
  return row === undefined ? undefined : { sha256: row.sha256, sha1: row.sha1, sizeBytes: Number(row.size_bytes) }
}
