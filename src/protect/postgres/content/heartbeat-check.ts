import { inEachDatabase } from './asking-role.ts'
import type { CheckedCopy, ContentCheck } from './content-check.ts'
import type { Finding } from '../check-list.ts'

/** Beats come every second; so old the newest may be before somebody has to say why. */
const PAUSE_SECONDS_MAX = 60
/** So much later than a time that recovery was told to stop at: both are of the server's own clock. */
const LATER_SECONDS_MAX = 2

export const HEARTBEAT = {
  name: 'heartbeat',
  expected: `the newest beat is not later than the moment asked for (by more than ${LATER_SECONDS_MAX} s, if that is a time), and not older than it by more than ${PAUSE_SECONDS_MAX} s`,
}

/** The newest heartbeat in the copy: what nobody but the protected server can have written, and when it did. `onBeat` learns of it. */
export function heartbeatCheck(onBeat: (at: Date) => void): ContentCheck {
  return { ...HEARTBEAT, look: async (copy) => look(copy, onBeat) }
}

async function look(copy: CheckedCopy, onBeat: (at: Date) => void): Promise<Finding> {
  const beat = await inEachDatabase(copy, async (client) => {
    const { rows: tables } = await client.query(
      "select 1 from pg_class where oid = to_regclass('resus.heartbeat') and relkind = 'r'",
    )
    if (tables.length === 0) return undefined
    const { rows } = await client.query<{ sequence: string; at: Date }>('select sequence, at from resus.heartbeat where id = 1')
    return rows[0]
  })
  if (beat === undefined) {
    return {
      verdict: 'not proven',
      found: 'there is no heartbeat: "resus config --heartbeat" prints the SQL that makes its table',
    }
  }
  // The first row is of the making of the table.
  if (beat.sequence === '0') return { verdict: 'not proven', found: 'it has never beaten: does "resus serve" run?' }
  onBeat(beat.at)
  return judgeBeat(beat, copy)
}

/** The newest beat, against the moment asked for. */
export function judgeBeat(
  beat: { readonly sequence: string; readonly at: Date },
  copy: Pick<CheckedCopy, 'askedMs' | 'isTimed'>,
): Finding {
  const found = `beat ${beat.sequence} of ${beat.at.toISOString()}`
  if (copy.askedMs === null) return { verdict: 'verified', found: `${found}; the target is no time to hold it against` }
  const seconds = (copy.askedMs - beat.at.getTime()) / 1000
  const age = `${Math.abs(seconds).toFixed(1)} s ${seconds < 0 ? 'after' : 'before'} the moment asked for`
  if (seconds < -(copy.isTimed ? LATER_SECONDS_MAX : PAUSE_SECONDS_MAX)) return { verdict: 'failed', found: `${found}, ${age}` }
  if (seconds > PAUSE_SECONDS_MAX) {
    return { verdict: 'not proven', found: `${found}, ${age}: either it did not beat then, or commits are missing` }
  }
  return { verdict: 'verified', found: `${found}, ${age}` }
}
