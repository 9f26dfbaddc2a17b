import { createHash, randomUUID } from 'node:crypto'
import type { Clearance } from '../authority/clearance.ts'
import type { Clock } from '../clock.ts'
import type { Store } from '../catalog/store.ts'
import { readTask, type Task } from '../catalog/tasks.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import { newRestorePlace } from './restore-place.ts'
import { LANES, PARAMETERS, type TaskKind } from './task-kinds.ts'
import type { TaskQueue } from './task-queue.ts'

export interface TaskRequest {
  /** One that may be worked on. */
  readonly picture: ComponentPicture
  readonly kind: TaskKind
  /** What was sent: the same under the same key is the same request. */
  readonly asked: unknown
  /** What comes of it; not looked at for a request that was sent before. */
  readonly parameters: () => Readonly<Record<string, unknown>> | Promise<Readonly<Record<string, unknown>>>
  readonly requestedBy: string
  /** What allows it, where it takes a second person. */
  readonly clearance?: Extract<Clearance, { readonly id: string }> | undefined
  /** The same key and request again give the same task. */
  readonly idempotencyKey?: string | undefined
}

const KEY_KEPT_MS = 24 * 3600 * 1000

/** What can be asked of the control plane, by whatever face. */
export class Control {
  readonly catalogue: Catalogue
  readonly store: Store
  readonly #queue: TaskQueue
  readonly #clock: Clock
  readonly #restoreRoots: readonly string[]

  constructor(options: {
    readonly catalogue: Catalogue
    readonly store: Store
    readonly queue: TaskQueue
    readonly clock: Clock
    readonly restoreRoots: readonly string[]
  }) {
    this.catalogue = options.catalogue
    this.store = options.store
    this.#queue = options.queue
    this.#clock = options.clock
    this.#restoreRoots = options.restoreRoots
  }

  get clock(): Clock {
    return this.#clock
  }

  get now(): number {
    return this.#clock.now()
  }

  /** Asks for work. Throws KEY_REUSED when the key was used for something else. */
  async request(request: TaskRequest): Promise<Task> {
    const { kind, picture, requestedBy, idempotencyKey, clearance } = request
    const component = picture.component.name
    const hash = hashOf([picture.system, component, kind, request.asked])
    const before = idempotencyKey === undefined ? undefined : await this.#taskOfKey(idempotencyKey, hash)
    if (before !== undefined) return before
    const parameters = PARAMETERS[kind].parse(await request.parameters()) as Record<string, unknown>
    const id = randomUUID()
    const at = new Date(this.#clock.now())
    const task = {
      id,
      system: picture.system,
      component,
      kind,
      lane: LANES[kind],
      parameters,
      requestedBy,
      at,
      ...(clearance === undefined ? {} : { clearance: `${clearance.kind}:${clearance.id}` }),
    }
    try {
      await this.#queue.request(task, async (queries) => {
        if (idempotencyKey === undefined) return
        await queries
          .insertInto('idempotency_keys')
          .values({ key: idempotencyKey, request_hash: hash, task_id: id, created_at: at })
          .execute()
      })
    } catch (error) {
      // Somebody else was quicker with the same key.
      const other =
        systemErrorCode(error) === '23505' && idempotencyKey !== undefined
          ? await this.#taskOfKey(idempotencyKey, hash)
          : undefined
      if (other === undefined) throw error
      return other
    }
    return (await readTask(this.store.sql, id))!
  }

  /** A new restore's directory, which is not there yet on this node. Throws what `newRestorePlace` throws. */
  async restorePlace(component: string, asked: string | undefined): Promise<string> {
    const name =
      asked ??
      `${component}-${new Date(this.now)
        .toISOString()
        .replaceAll(/[-:]|\.\d+/g, '')
        .toLowerCase()}`
    return await newRestorePlace(this.#restoreRoots, name)
  }

  async #taskOfKey(key: string, hash: Buffer): Promise<Task | undefined> {
    const since = new Date(this.#clock.now() - KEY_KEPT_MS)
    await this.store.sql.deleteFrom('idempotency_keys').where('created_at', '<', since).execute()
    const row = await this.store.sql.selectFrom('idempotency_keys').selectAll().where('key', '=', key).executeTakeFirst()
    if (row === undefined) return undefined
    if (row.request_hash.equals(hash)) return await readTask(this.store.sql, row.task_id)
    throw new Failure('KEY_REUSED', 'this Idempotency-Key was used for another request', {
      hint: 'use a new key for each request',
    })
  }
}

function hashOf(value: unknown): Buffer {
  return createHash('sha256').update(JSON.stringify(value)).digest()
}
