import { createHash, hash } from 'node:crypto'
import { copyRow } from './copy.ts'
import { jsonbText } from './jsonb-text.ts'
import type { Random } from './random.ts'

/** A change of state at a time of the history, before it has its place in the chains. */
export interface Draft {
  readonly atMs: number
  readonly stream: string
  readonly type: string
  readonly schemaVersion: number
  readonly facility: string
  readonly otherFacility?: string
  readonly actor: string
  readonly payload: object
  /** Whether another version of its stream follows. */
  readonly continues: boolean
}

/** The columns of `hospital.events` in the order of ChainWriter.row. */
export const EVENT_COLUMNS =
  'position, id, stream, version, type, schema_version, facility, other_facility, actor, at, payload, previous_hash, hash, lane, lane_sequence, lane_hash'

const NO_HASH = Buffer.alloc(32)
const SCRATCH = Buffer.alloc(1024 * 1024)
const BEYOND_BASIC_PLANE = /[\ud800-\udfff]/

interface Head {
  readonly version: number
  readonly hash: Buffer
}

/**
 * Puts drafts into the chains of hospital.events, each behind the one before: position, version, both hashes, as hospital.record and hospital.event_hash do for one event.
 * In the database it took six times as long as here, and a second copy of every event.
 */
export class ChainWriter {
  readonly #lane: number
  readonly #random: Random
  readonly #heads = new Map<string, Head>()
  readonly #digest = createHash('sha256')
  #position: bigint
  #laneSequence = 0
  #laneHash: Buffer = NO_HASH

  constructor(options: { readonly lane: number; readonly lastPosition: bigint; readonly random: Random }) {
    this.#lane = options.lane
    this.#random = options.random
    this.#position = options.lastPosition
  }

  get position(): bigint {
    return this.#position
  }

  /** The end of the lane, for hospital.lanes. */
  get lane(): { readonly lane: number; readonly sequence: number; readonly hash: Buffer } {
    return { lane: this.#lane, sequence: this.#laneSequence, hash: this.#laneHash }
  }

  /** The event as a row of COPY. Drafts come in the order of their times. */
  row(draft: Draft): string {
    const { stream, atMs, type, schemaVersion, facility, otherFacility, actor } = draft
    const head = this.#heads.get(stream)
    const version = (head?.version ?? 0) + 1
    const id = this.#random.uuid(atMs)
    const payload = jsonbText(draft.payload)
    const previous = head?.hash ?? NO_HASH
    const parts = [
      id,
      stream,
      String(version),
      type,
      String(schemaVersion),
      facility,
      otherFacility ?? '',
      actor,
      `${atMs}000`,
      payload,
    ]
    const eventHash = sha256Behind(previous, parts.map(lengthPrefixed).join(''))
    if (draft.continues) this.#heads.set(stream, { version, hash: eventHash })
    else this.#heads.delete(stream)
    this.#position += 1n
    this.#laneSequence += 1
    this.#laneHash = sha256Behind(this.#laneHash, eventHash)
    this.#digest.update(eventHash)
    return copyRow([
      this.#position.toString(),
      id,
      stream,
      version,
      type,
      schemaVersion,
      facility,
      otherFacility ?? null,
      actor,
      new Date(atMs).toISOString(),
      payload,
      bytea(previous),
      bytea(eventHash),
      this.#lane,
      this.#laneSequence,
      bytea(this.#laneHash),
    ])
  }

  /** Over all events so far: two runs that give the same wrote the same. */
  digest(): string {
    return this.#digest.copy().digest('hex')
  }
}

/** sha256(previous || rest) */
function sha256Behind(previous: Buffer, rest: string | Buffer): Buffer {
  previous.copy(SCRATCH)
  const size = typeof rest === 'string' ? SCRATCH.write(rest, previous.length) : rest.copy(SCRATCH, previous.length)
  if (previous.length + size === SCRATCH.length) throw new RangeError('an event of more than a mebibyte')
  return hash('sha256', SCRATCH.subarray(0, previous.length + size), 'buffer')
}

/** As hospital.event_hash does it: PostgreSQL's length() counts characters, a string's of JavaScript those beyond U+FFFF twice. */
function lengthPrefixed(part: string): string {
  const length = BEYOND_BASIC_PLANE.test(part) ? Array.from(part).length : part.length
  return `${length}:${part}`
}

function bytea(bytes: Buffer): string {
  return `\\x${bytes.toString('hex')}`
}
