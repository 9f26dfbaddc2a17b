import { randomUUID, timingSafeEqual } from 'node:crypto'
import {
  escalateApprovals,
  expireApprovals,
  insertApproval,
  listApprovals,
  moveApproval,
  readApproval,
  type Approval,
} from '../catalog/approvals.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { Failure, FAILURES } from '../errors.ts'
import type { Repository } from '../repository/repository.ts'
import { anchorDecision, anchorRevocation, readDecision, readUse } from './anchors.ts'
import { digestOf, type Asked, type Decided, type Operation } from './operation.ts'
import type { Principal } from './principal.ts'
import { reaches } from './roles.ts'

const EXPIRES_MS = 4 * 3_600_000
const ESCALATES_MS = 5 * 60_000
/** Whoever made an account, or reset its factors, holds it for so long: what it says counts as theirs. */
const FOREIGN_AFTER_MS = 24 * 3_600_000
const WAITING_MAX = 500
/** Of one who asks: nobody keeps others from asking. */
const ASKER_MAX = 20

/** Asked by whoever writes a file, or works on a host. */
const OF_NO_PERSON = /^(file|host):/

/** What it is about. */
export interface Subject {
  readonly system: string | null
  readonly component: string | null
}

export interface NewRequest {
  readonly operation: Operation
  readonly parameters: Asked['parameters'] | (() => Promise<Asked['parameters']>)
  readonly id?: string | undefined
}

export interface Decision {
  readonly decision: 'approve' | 'refuse'
  /** A factor of Resus's own, given for this decision. */
  readonly factor: unknown
  readonly reason: string | null
}

export interface ApprovalsOptions {
  readonly store: Store
  readonly clock: Clock
  /** Where a decision is kept: a system's repository, or all that can be reached. Throws when there is none. */
  readonly repositoriesOf: (system: string | null) => Promise<readonly Repository[]>
  /** Checks a factor for this digest, and uses it up. Throws FACTOR_WRONG, LOCKED_OUT. */
  readonly freshFactor: (person: string, given: unknown, digest: string) => Promise<'totp' | 'passkey'>
  /** Whose data it is about, as it is configured now; empty for the whole installation. */
  readonly facilitiesOf: (subject: Subject) => readonly string[]
  /** Whether one person made another's account, or reset a factor of it, since then; null: whether anybody else did. */
  readonly wasInHandOf: (person: string, by: string | null, since: Date) => Promise<boolean>
  /** Does what was approved; gives what came of it, or nothing where somebody else does it, on a host. May be called again for the same approval after a crash. */
  readonly execute: (approval: Approval) => Promise<Readonly<Record<string, unknown>> | undefined>
  /** What a row says that Resus has written it so, for a digest. */
  readonly sealOf: (digest: string) => Buffer
  /** Tells people, and the trail. */
  readonly note: (
    event: 'asked' | 'approved' | 'refused' | 'revoked' | 'expired' | 'used' | 'failed' | 'waits',
    approval: Approval,
  ) => Promise<void>
}

/** What takes two people: asked for by one, decided by another, done once (docs/authority.md). */
export class Approvals {
  readonly #options: ApprovalsOptions

  constructor(options: ApprovalsOptions) {
    this.#options = options
  }

  /** Under an id of one's own it is asked for once. Throws BUSY when too many wait. */
  async ask(by: Principal, { operation, parameters, id = randomUUID() }: NewRequest, subject: Subject): Promise<Approval> {
    const { store, clock, sealOf, note } = this.#options
    const before = await readApproval(store.sql, id)
    if (before !== undefined) return before
    const waiting = await listApprovals(store.sql, { states: ['pending'] }, { limit: WAITING_MAX })
    const asker = by.person ?? by.id
    if (waiting.filter(({ asked_by: each }) => each === asker).length >= ASKER_MAX) {
      throw new Failure('BUSY', `${ASKER_MAX} requests of "${by.name}" wait for a decision already`, { hint: 'revoke some' })
    }
    if (waiting.length >= WAITING_MAX) {
      throw new Failure('BUSY', `${WAITING_MAX} requests wait for a decision already`, { hint: 'decide on them, or revoke some' })
    }
    const nowMs = clock.now()
    const asked: Asked = {
      id,
      operation,
      system: subject.system,
      component: subject.component,
      parameters: typeof parameters === 'function' ? await parameters() : parameters,
      askedBy: { id: asker, name: by.name },
      askedAt: new Date(nowMs).toISOString(),
      expiresAt: new Date(nowMs + EXPIRES_MS).toISOString(),
    }
    const { askedAt, expiresAt, ...same } = asked
    const digest = digestOf(asked)
    await insertApproval(store.sql, {
      ...same,
      digest,
      seal: sealOf(digest),
      askedAt: new Date(askedAt),
      expiresAt: new Date(expiresAt),
    })
    const approval = await this.read(asked.id)
    await note('asked', approval)
    return approval
  }

  /** Throws APPROVAL_UNKNOWN. */
  async read(id: string): Promise<Approval> {
    const approval = await readApproval(this.#options.store.sql, id)
    if (approval !== undefined) return approval
    throw new Failure('APPROVAL_UNKNOWN', `there is no request "${id}"`, { hint: 'GET approvals lists them' })
  }

  /** Decides, and does what was approved. Throws APPROVAL_UNKNOWN, APPROVAL_INVALID, FORBIDDEN, FACTOR_WRONG, and what the storage throws: then nothing was decided. */
  async decide(id: string, by: Principal, { decision, factor, reason }: Decision): Promise<Approval> {
    const { store, clock, repositoriesOf, freshFactor, note } = this.#options
    const approval = await this.read(id)
    const asked = askedOf(approval)
    this.#requireWaiting(approval, asked)
    await this.#requireOther(approval, by)
    const person = by.person!
    const shown = await freshFactor(person, factor, approval.digest)
    const repositories = await repositoriesOf(approval.system)
    const mine: Decided = {
      format: 1,
      ...asked,
      digest: approval.digest,
      decision,
      decidedBy: { id: person, name: by.name },
      decidedAt: new Date(clock.now()).toISOString(),
      factor: shown,
      reason,
    }
    // What is there already was decided by somebody who was quicker, or before a crash: that counts.
    const decided = await anchorDecision(repositories, mine)
    // They had approved, and it was not done: taken back by themselves, it is never done.
    const isTakenBack = decided.decidedBy.id === person && decided.decision === 'approve' && decision === 'refuse'
    if (isTakenBack) await anchorRevocation(repositories, id, clock.now())
    const moved = await moveApproval(store.sql, id, ['pending'], {
      state: decided.decision === 'approve' && !isTakenBack ? 'approved' : 'refused',
      at: new Date(clock.now()),
      decided: {
        by: decided.decidedBy.id,
        name: decided.decidedBy.name,
        factor: decided.factor,
        reason: decided.reason,
        at: new Date(decided.decidedAt),
      },
    })
    if (moved === undefined) {
      const now = await this.read(id)
      // Somebody who was slower has written down already that this decision counts.
      if (decided.decidedBy.id !== person || now.decided_by !== person) throw this.#over(now)
      return now.state === 'approved' ? await this.#run(now) : now
    }
    await note(moved.state === 'approved' ? 'approved' : 'refused', moved)
    if (decided.decidedBy.id !== person) throw this.#over(moved)
    return moved.state === 'approved' ? await this.#run(moved) : moved
  }

  /** By whoever asked, until it is used. Throws APPROVAL_UNKNOWN, APPROVAL_INVALID, FORBIDDEN. */
  async revoke(id: string, by: Principal): Promise<Approval> {
    const { store, clock, repositoriesOf, note } = this.#options
    const approval = await this.read(id)
    if (approval.asked_by !== (by.person ?? by.id)) {
      throw new Failure('FORBIDDEN', 'only who asked for it revokes a request', { hint: 'an approver can refuse it' })
    }
    if (approval.state !== 'pending' && approval.state !== 'approved') throw this.#over(approval)
    await anchorRevocation(await repositoriesOf(approval.system), id, clock.now())
    const moved = await moveApproval(store.sql, id, ['pending', 'approved'], { state: 'revoked', at: new Date(clock.now()) })
    if (moved === undefined) throw this.#over(await this.read(id))
    await note('revoked', moved)
    return moved
  }

  /** What time has done; and what was approved when somebody died before it was done. By one node at a time. */
  async look(): Promise<void> {
    const { store, clock, note } = this.#options
    const at = new Date(clock.now())
    for (const approval of await expireApprovals(store.sql, at)) await note('expired', approval)
    for (const approval of await escalateApprovals(store.sql, new Date(clock.now() - ESCALATES_MS), at))
      await note('waits', approval)
    let failure: unknown
    for (const approval of await listApprovals(store.sql, { states: ['approved'] }, { limit: WAITING_MAX })) {
      // One that cannot be done yet keeps no other.
      await this.#run(approval).catch((error: unknown) => (failure = error))
    }
    if (failure !== undefined) throw failure as Error
  }

  async #run(approval: Approval): Promise<Approval> {
    const { store, clock, execute, note } = this.#options
    let moved: Approval | undefined
    try {
      const outcome = await execute(await this.#asDecided(approval))
      if (outcome === undefined) return approval
      moved = await moveApproval(store.sql, approval.id, ['approved'], { state: 'used', at: new Date(clock.now()), outcome })
    } catch (error) {
      if (!(error instanceof Failure) || FAILURES[error.code].retry) throw error
      const { code, message } = error
      moved = await moveApproval(store.sql, approval.id, ['approved'], {
        state: 'failed',
        at: new Date(clock.now()),
        outcome: { code, message },
      })
    }
    // Another node was quicker: it has noted it.
    if (moved === undefined) return await this.read(approval.id)
    await note(moved.state === 'used' ? 'used' : 'failed', moved)
    return moved
  }

  /** What the repository says was approved, in time and not taken back: a row of the store that somebody has written, or changed, runs nothing. */
  async #asDecided(approval: Approval): Promise<Approval> {
    const digest = digestOf(askedOf(approval))
    for (const repository of await this.#options.repositoriesOf(approval.system)) {
      const decided = await readDecision(repository, approval.id)
      if (decided?.decision !== 'approve' || decided.digest !== digest) continue
      const isOver = Date.parse(decided.expiresAt) <= this.#options.clock.now()
      const use = await readUse(repository, approval.id)
      if (!isOver && use?.run !== null) return { ...approval, parameters: decided.parameters }
    }
    throw new Failure(
      'APPROVAL_INVALID',
      'no repository knows that this was approved, or it was taken back, or its time is over',
      {
        hint: 'was the store changed? Find out who, and ask again',
      },
    )
  }

  async #requireOther(approval: Approval, by: Principal): Promise<void> {
    const { clock, facilitiesOf, wasInHandOf } = this.#options
    if (by.kind !== 'person' || by.person === null) throw new Failure('FORBIDDEN', 'only a person decides, and no token')
    if (!reaches(by, 'approval.decide', facilitiesOf(approval))) {
      throw new Failure('FORBIDDEN', 'it is about facilities that you are no approver of', {
        hint: 'ask an approver of all of them',
      })
    }
    if (by.person === approval.asked_by) {
      throw new Failure('FORBIDDEN', 'nobody decides on their own request', { hint: 'another approver has to' })
    }
    // Who stands behind a file or a host nobody knows: it may be whoever made this account.
    const asker = OF_NO_PERSON.test(approval.asked_by) ? null : approval.asked_by
    if (await wasInHandOf(by.person, asker, new Date(clock.now() - FOREIGN_AFTER_MS))) {
      const who = asker === null ? 'somebody else' : `"${approval.asked_name}"`
      throw new Failure('FORBIDDEN', `${who} made this account, or reset a factor of it, in the last 24 hours`, {
        hint: 'another approver has to decide',
      })
    }
  }

  #requireWaiting(approval: Approval, asked: Asked): void {
    if (approval.state !== 'pending' || approval.expires_at.getTime() <= this.#options.clock.now()) throw this.#over(approval)
    // Somebody has changed what was asked for in the store, or has written there that another asks.
    if (digestOf(asked) === approval.digest && isSame(approval.seal, this.#options.sealOf(approval.digest))) return
    throw new Failure('APPROVAL_INVALID', 'the request is not what it was when it was made: its digest or its seal is another', {
      hint: 'somebody has changed the store: find out who, and ask again',
    })
  }

  #over({ state }: Approval): Failure {
    return new Failure('APPROVAL_INVALID', `it is ${state === 'pending' ? 'expired' : state} already`, { hint: 'ask again' })
  }
}

function isSame(given: Buffer | null, wanted: Buffer): boolean {
  return given !== null && given.length === wanted.length && timingSafeEqual(given, wanted)
}

/** What was asked for, as its digest has it. */
export function askedOf(approval: Approval): Asked {
  return {
    id: approval.id,
    operation: approval.operation as Operation,
    system: approval.system,
    component: approval.component,
    parameters: approval.parameters as Asked['parameters'],
    askedBy: { id: approval.asked_by, name: approval.asked_name },
    askedAt: approval.asked_at.toISOString(),
    expiresAt: approval.expires_at.toISOString(),
  }
}
