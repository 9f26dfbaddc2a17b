import type { Lsn } from '../../postgres/lsn.ts'
import type { ReplicationConnection } from '../../postgres/replication.ts'

export interface SlotWanted {
  readonly slot: string
  /** One that goes with the connection. */
  readonly temporary: boolean
}

/** The slot, made if it is not there; gives the oldest WAL that the server keeps for it. */
export async function ensureSlot(connection: ReplicationConnection, { slot, temporary }: SlotWanted): Promise<Lsn | null> {
  const there = await connection.readSlot(slot)
  if (there !== undefined) return there.restartLsn
  await connection.createPhysicalSlot(slot, { temporary, reserveWal: true })
  return (await connection.readSlot(slot))?.restartLsn ?? null
}

/** A new slot in place of one that the server has invalidated, or that is gone. Throws SLOT_BUSY. */
export async function remakeSlot(connection: ReplicationConnection, wanted: SlotWanted): Promise<Lsn | null> {
  if (!wanted.temporary && (await connection.readSlot(wanted.slot)) !== undefined) await connection.dropSlot(wanted.slot)
  return await ensureSlot(connection, wanted)
}

/** Whether the server counts a receiver of this name as a synchronous standby. */
export function namesStandby(synchronousStandbyNames: string, name: string): boolean {
  return synchronousStandbyNames.split(/[\s,()"]+/).some((each) => each === '*' || each.toLowerCase() === name)
}
