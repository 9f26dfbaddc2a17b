import { keyedDigest, type KeyRing } from '../../../repository/key-ring.ts'
import type { ChecksSettings } from './checks-schema.ts'
import { commandCheck } from './command-check.ts'
import type { ContentCheck } from './content-check.ts'
import { heartbeatCheck } from './heartbeat-check.ts'
import { sequencesCheck } from './sequences-check.ts'
import { sqlCheck } from './sql-check.ts'

/** All content checks of a component, in the order in which they are made. `onBeat` learns when the newest heartbeat in the copy was. */
export function contentChecks(
  settings: ChecksSettings,
  more: { readonly database: string; readonly ring: KeyRing; readonly onBeat: (at: Date) => void },
): ContentCheck[] {
  const { database, ring, onBeat } = more
  return [
    heartbeatCheck(onBeat),
    sequencesCheck,
    ...settings.sql.map((each) =>
      sqlCheck(each, { database, digest: (text) => keyedDigest(ring, `sql check ${each.name}`, text) }),
    ),
    ...settings.commands.map((each) => commandCheck(each, { database })),
  ]
}
