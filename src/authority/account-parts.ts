import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import type { Note } from './account-event.ts'
import type { CredentialMemory } from './credential-memory.ts'
import type { SealingKey } from './sealing-key.ts'

/** What every part of the accounts is given. */
export interface AccountParts {
  readonly store: Store
  readonly clock: Clock
  readonly seal: SealingKey
  readonly note: Note
  readonly memory: CredentialMemory
}
