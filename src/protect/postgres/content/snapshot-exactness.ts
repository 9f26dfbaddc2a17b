import type pg from 'pg'
import { unseenBy } from './baseline.ts'

/** So many transactions are looked at; where there were more, some have committed. */
const TRANSACTIONS_MAX = 1_000_000

/**
 * Whether a transaction that a snapshot did not see has committed, of those below `below` (all of them, if undefined): then what is there now is not what the snapshot saw. One whose outcome the server
 * does not know any more counts as committed; `mark` is one that makes no difference.
 */
export async function hasUnseenCommits(
  client: pg.Client,
  { snapshot, mark }: { readonly snapshot: string; readonly mark?: string },
  below?: bigint,
): Promise<boolean> {
  const { underWay, from } = unseenBy(snapshot)
  const { rows } = await client.query<{ unseen: boolean }>(UNSEEN, [
    underWay,
    String(from),
    below === undefined ? null : String(below),
    TRANSACTIONS_MAX,
    mark ?? null,
  ])
  return rows[0]!.unseen
}

const UNSEEN = `
  select upto - $2::bigint > $4
    -- One that never wrote anything may not be known to have been there; asking for it would be an error.
    or exists (
      select from unnest($1::text[]) x
      where case when x::bigint < upto then coalesce(pg_xact_status(x::xid8), 'committed') = 'committed' else false end)
    or exists (
      select from generate_series($2::bigint, least(upto, $2::bigint + $4) - 1) x
      where x is distinct from $5::bigint and coalesce(pg_xact_status(x::text::xid8), 'committed') = 'committed') as unseen
  from (select least(coalesce($3::bigint, pg_snapshot_xmax(now)::text::bigint), pg_snapshot_xmax(now)::text::bigint) as upto
    from (select pg_current_snapshot() as now) n) u`
