import type { Principal } from '../../authority/principal.ts'
import type { Administrator } from '../administrator.ts'
import { tokenOf } from './credentials.ts'
import type { Gate } from './guard.ts'

const ADMINISTRATOR: Principal = {
  kind: 'bootstrap',
  id: 'administrator',
  person: null,
  name: 'administrator',
  grants: [],
  factor: 'file',
}

/** While nobody is known: whoever has the token of the file may do everything. */
export function administratorGate(administrator: Administrator): Gate {
  return {
    principalOf: async (request) => (administrator.holds(tokenOf(request)) ? ADMINISTRATOR : undefined),
    noteRefused: async () => undefined,
  }
}
