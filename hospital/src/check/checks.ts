import { facilities, subjects } from './compartments.ts'
import { consents } from './consents.ts'
import { documents } from './documents.ts'
import { heartbeats } from './heartbeats.ts'
import { checkpoints, streams, versions } from './history.ts'
import { projections } from './projections.ts'
import { foreignKeys, references } from './references.ts'
import { sharing } from './sharing.ts'
import { counts, newest, sequences } from './standings.ts'
import type { Check } from './verdict.ts'
import { audit, provenance } from './witnesses.ts'

/** All of the self-check, the cheap and telling first. */
export const CHECKS: readonly Check[] = [
  counts,
  newest,
  heartbeats,
  sequences,
  checkpoints,
  streams,
  versions,
  audit,
  provenance,
  projections,
  references,
  foreignKeys,
  subjects,
  facilities,
  sharing,
  consents,
  documents,
]
