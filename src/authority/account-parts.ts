import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import type { Note } from './account-event.ts'
import type { CredentialMemory } from './credential-memory.ts'
import type { SealedPeople } from './sealed-people.ts'
import type { SealingKey } from './sealing-key.ts'
import type { ChangedOutside } from './sealed-people.ts'
import type { Tickets } from './tickets.ts'

/** What every part of the accounts is given. */
export interface AccountParts {
  readonly store: Store
  readonly clock: Clock
  readonly seal: SealingKey
  /** People, as their seals say. */
  readonly sealed: SealedPeople
  readonly tickets: Tickets
  /** Somebody else has written into the store. */
  readonly onChanged: (found: ChangedOutside) => void
  readonly note: Note
  readonly memory: CredentialMemory
}
