import { keyedDigest } from '../../../repository/key-ring.ts'
import type { Repository } from '../../../repository/repository.ts'
import type { ChecksSettings } from './checks-schema.ts'
import { canariesCheck } from './canaries-check.ts'
import { catalogCheck } from './catalog-check.ts'
import { collationsCheck } from './collations-check.ts'
import { commandCheck } from './command-check.ts'
import type { ContentCheck } from './content-check.ts'
import { fhirChecks } from './fhir-checks.ts'
import { heartbeatCheck } from './heartbeat-check.ts'
import { BaselineShelf } from './held-baseline.ts'
import { rowsCheck } from './rows-check.ts'
import { sequencesCheck } from './sequences-check.ts'
import { sqlCheck } from './sql-check.ts'

/** All content checks of a component, in the order in which they are made. `onBeat` learns when the newest heartbeat in the copy was. */
export function contentChecks(
  settings: ChecksSettings,
  more: {
    readonly repository: Repository
    readonly component: string
    readonly facilities: readonly string[]
    /** Where queries are asked, unless they say otherwise. */
    readonly database: string
    readonly onBeat: (at: Date) => void
  },
): ContentCheck[] {
  const { database, repository, component, facilities, onBeat } = more
  const { ring } = repository
  const shelf = new BaselineShelf(repository, component)
  return [
    heartbeatCheck(onBeat),
    canariesCheck({ ring, component, facilities }),
    sequencesCheck,
    catalogCheck(shelf),
    collationsCheck,
    rowsCheck(shelf, settings.baseline),
    ...(settings.fhir === undefined
      ? []
      : fhirChecks(settings.fhir, {
          shelf,
          database: settings.baseline.database ?? database,
          minutes: settings.baseline.minutes,
        })),
    ...settings.sql.map((each) =>
      sqlCheck(each, { database, digest: (text) => keyedDigest(ring, `sql check ${each.name}`, text) }),
    ),
    ...settings.commands.map((each) =>
      commandCheck(each, { database, digest: (text) => keyedDigest(ring, `command check ${each.name}`, text) }),
    ),
  ]
}
