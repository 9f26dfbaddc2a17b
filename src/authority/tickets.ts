import { insertTicket, readTicket, takeTicket, type NewTicket, type Ticket, type WhichTicket } from '../catalog/tickets.ts'
import type { Store } from '../catalog/store.ts'
import type { SealingKey } from './sealing-key.ts'
import { isTicketSealed, sealOfTicket } from './seals.ts'

type Queries = Store['sql']

/** What is good once: one that somebody else has put into the store is none. */
export class Tickets {
  readonly #key: SealingKey

  constructor(key: SealingKey) {
    this.#key = key
  }

  async insert(queries: Queries, ticket: NewTicket): Promise<void> {
    const { digest, purpose, person, data, sealed = null, expiresAt } = ticket
    await insertTicket(queries, ticket, sealOfTicket(this.#key, { digest, purpose, person, data, sealed, expires_at: expiresAt }))
  }

  /** Looks at one that is still good, without using it. */
  async read(queries: Queries, which: WhichTicket): Promise<Ticket | undefined> {
    return this.#good(await readTicket(queries, which))
  }

  /** Uses one: of two at once, on whatever node, one gets it. */
  async take(queries: Queries, which: WhichTicket): Promise<Ticket | undefined> {
    return this.#good(await takeTicket(queries, which))
  }

  #good(ticket: Ticket | undefined): Ticket | undefined {
    return ticket !== undefined && isTicketSealed(this.#key, ticket) ? ticket : undefined
  }
}
