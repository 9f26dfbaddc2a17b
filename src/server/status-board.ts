import type { BackupStatus } from '../api/schemas.ts'
import type { NodeReach } from '../catalog/schema.ts'
import type { Node } from '../catalog/nodes.ts'
import type { Clock } from '../clock.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import { componentKey } from './component-key.ts'
import type { ReceiverPicture, Receivers } from './receivers.ts'

type ComponentStatus = BackupStatus['components'][number]
type LastTask = ComponentStatus['lastTask'][string]

/** A node, as far as it is known: this one before the store has answered. */
export type SeenNode = Pick<Node, 'name' | 'reach'> & { readonly renewed_at?: Date | undefined }

/** A repository is read every minute; of what was read so long ago nobody knows whether it is still so. */
const READING_HOLDS_MS = 10 * 60_000

/** What is known now, in memory: every answer is made of it, and none asks anybody. */
export class StatusBoard {
  readonly #catalogue: Catalogue
  readonly #receivers: Receivers | undefined
  readonly #clock: Clock
  readonly #lastTasks = new Map<string, Map<string, LastTask>>()
  #nodes: readonly SeenNode[] = []

  constructor(options: { readonly catalogue: Catalogue; readonly receivers?: Receivers | undefined; readonly clock: Clock }) {
    this.#catalogue = options.catalogue
    this.#receivers = options.receivers
    this.#clock = options.clock
  }

  noteNodes(nodes: readonly SeenNode[]): void {
    this.#nodes = nodes
  }

  get nodes(): readonly SeenNode[] {
    return this.#nodes
  }

  noteTask(task: { readonly system: string; readonly component: string | null; readonly kind: string } & LastTask): void {
    const { system, component, kind, id, state, endedAt } = task
    const key = componentKey(system, component ?? '')
    const kinds = this.#lastTasks.get(key) ?? new Map<string, LastTask>()
    kinds.set(kind, { id, state, endedAt })
    this.#lastTasks.set(key, kinds)
  }

  backupStatus(): BackupStatus {
    const asOf = new Date(this.#clock.now()).toISOString()
    return { asOf, components: this.#catalogue.pictures().map((picture) => this.#component(picture)) }
  }

  #component(picture: ComponentPicture): ComponentStatus {
    const { system, component, status, asOf, problem, backups, damaged } = picture
    const [newest] = backups
    const finishedAt = newest === undefined ? undefined : Date.parse(newest.finishedAt)
    const reach = this.#nodes.flatMap((node) => reachOf(node, system, component.name))
    // An expired proof is none: judged now, and not when it was read.
    const proven = status?.proven ?? null
    const now = this.#clock.now()
    const isFresh = problem === null && damaged.length === 0 && asOf !== null && now - Date.parse(asOf) < READING_HOLDS_MS
    // What cannot be read now is not proven now, whatever was found when it could.
    const current = isFresh && proven !== null && proven.current && Date.parse(proven.expires) > now
    return {
      system,
      component: component.name,
      tier: component.tier,
      asOf,
      problem,
      verdict: status === null || (status.verdict === 'verified' && !current) ? 'not proven' : status.verdict,
      proven: proven === null ? null : { backup: proven.backup, at: proven.at, expires: proven.expires, current },
      backups: backups.length,
      newestBackup:
        newest === undefined || finishedAt === undefined
          ? null
          : {
              id: newest.id,
              type: newest.type,
              finishedAt: newest.finishedAt,
              ageSeconds: Math.max(0, Math.round((this.#clock.now() - finishedAt) / 1000)),
            },
      damaged: [...damaged],
      wal: status?.wal ?? null,
      receiver: this.#receiver(picture),
      reachedBy: reach.filter(({ reached }) => reached).map(({ node }) => node),
      notReached: reach.flatMap(({ node, reached, why }) => (reached ? [] : [{ node, why: why ?? '' }])),
      lastTask: Object.fromEntries(this.#lastTasks.get(componentKey(system, component.name)) ?? []),
    }
  }

  #receiver({ system, component, status }: ComponentPicture): ComponentStatus['receiver'] {
    const live = this.#receivers?.picture(system, component.name)
    const seen = status?.receiver
    return {
      state: live?.state ?? (seen?.active === true ? 'receiving' : 'none'),
      acknowledgedLsn: live?.acknowledgedLsn ?? null,
      archivedLsn: live?.archivedLsn ?? null,
      behindBytes: seen?.behindBytes ?? null,
      synchronous: seen?.synchronous ?? false,
      // What the server said a while ago counts only where we hear nothing ourselves.
      problem: live === undefined ? (seen?.problem ?? null) : live.problem,
      alarms: alarmsOf(live, seen?.synchronous === true),
    }
  }
}

/** The receiver looks once, when it connects, whether the server waits for it: what the server says later counts. */
function alarmsOf(live: ReceiverPicture | undefined, synchronous: boolean): Record<string, string> {
  const alarms = Object.entries(live?.alarms ?? {})
  return Object.fromEntries(alarms.filter(([code]) => !(synchronous && code === 'SERVER_SETTING')))
}

function reachOf(node: SeenNode, system: string, component: string): (NodeReach & { node: string })[] {
  return node.reach
    .filter((each) => each.system === system && each.component === component)
    .map((each) => ({ ...each, node: node.name }))
}
