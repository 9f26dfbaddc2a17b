import { systemClock } from '../clock.ts'
import { loadSystems } from '../config/systems.ts'
import type { Configuration } from '../config/configuration.ts'
import { openConfigured, resolveComponent } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { CanaryRound } from '../protect/postgres/canary-round.ts'
import { streamSpool } from '../protect/postgres/component.ts'
import { runHeartbeat } from '../protect/postgres/heartbeat.ts'
import { HeartbeatTracker, walLine } from '../protect/postgres/heartbeat-tracker.ts'
import { streamWal } from '../protect/postgres/stream.ts'
import { newestBackupId, readManifest } from '../repository/backups.ts'
import type { Repository } from '../repository/repository.ts'
import { listGaps } from '../repository/wal-archive.ts'
import { listBranches } from '../repository/wal-branch.ts'
import { eventJson, type StreamEvent } from '../protect/postgres/stream-event.ts'
import { componentKey } from './component-key.ts'
import type { ReceiverMessage } from './receivers.ts'

// The process of all receivers of a node: nothing else runs in it, so that nothing delays an acknowledgement. It ends with its supervisor.

/** A commit a millisecond would be a message a millisecond. */
const POSITION_EVERY_MS = 500
const AGAIN_MS = 15_000
const EXPOSURES_EVERY_MS = 2_000
const REPOSITORY_EVERY_MS = 20_000

const repositories = new Map<Configuration, Promise<Repository>>()
/** Messages that the supervisor has not taken. */
let unheard = 0
const PASSING = new Set(['acknowledged', 'archived'])
const PASSING_UNHEARD_MAX = 1_000
const UNHEARD_MAX = 10_000

const [, , configPath = '', reached = '[]'] = process.argv
const controller = new AbortController()
const { signal } = controller
const end = () => controller.abort(new Failure('INTERRUPTED', 'the receivers were told to end'))
for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, end)
process.on('disconnect', end)

const wanted = new Set(JSON.parse(reached) as string[])
const { systems } = await loadSystems(configPath)
await Promise.all(systems.map(receiveSystem))
if (process.connected) process.disconnect()

async function receiveSystem(configuration: Configuration): Promise<void> {
  const components = configuration.components.filter(({ name }) => wanted.has(componentKey(configuration.system, name)))
  await Promise.all(
    components.map(async ({ name }) => {
      const tracker = new HeartbeatTracker()
      await Promise.all([receiveAlways(configuration, name, tracker), measureExposure(configuration, name, tracker)])
    }),
  )
}

/** Beats in the database, and tells what would be lost now. That it cannot beat disturbs no receiver. */
async function measureExposure(configuration: Configuration, name: string, tracker: HeartbeatTracker): Promise<void> {
  const { system } = configuration
  let trouble: { readonly code: string; readonly message: string; readonly hint: string | null } | null = null
  const telling = (async () => {
    while (!signal.aborted) {
      const exposures = JSON.parse(JSON.stringify(tracker.exposures(Date.now()), textOfBigint)) as object
      tell({ kind: 'exposures', system, component: name, exposures, trouble })
      await systemClock.sleep(EXPOSURES_EVERY_MS, signal).catch(() => undefined)
    }
  })()
  const settings = configuration.components.find((each) => each.name === name)!
  const canaries = new CanaryRound({
    component: name,
    facilities: settings.facilities ?? Object.keys(configuration.facilities ?? {}),
    ring: async () => (await repositoryOf(configuration)).ring,
  })
  while (!signal.aborted) {
    try {
      await runHeartbeat({
        component: await resolveComponent(settings),
        canaries,
        clock: systemClock,
        signal,
        onBeat: (beat) => {
          trouble = null
          tracker.noteBeat(beat)
        },
        onTrouble: ({ code, message, hint = null }) => {
          trouble = { code, message, hint }
        },
      })
    } catch (error) {
      trouble = { code: error instanceof Failure ? error.code : 'BUG', message: String(error), hint: null }
    }
    await systemClock.sleep(AGAIN_MS, signal).catch(() => undefined)
  }
  await telling
}

function textOfBigint(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value
}

/** Receives, and begins again after whatever ended it. */
async function receiveAlways(configuration: Configuration, name: string, tracker: HeartbeatTracker): Promise<void> {
  while (!signal.aborted) {
    try {
      await receive(configuration, name, tracker)
    } catch (error) {
      if (signal.aborted) return
      const { code, message } = error instanceof Failure ? error : { code: 'BUG', message: String(error) }
      tell({ kind: 'ended', system: configuration.system, component: name, code, message })
    }
    await systemClock.sleep(AGAIN_MS, signal).catch(() => undefined)
  }
}

/**
 * What the repository has besides the receiver's own events: gaps of before this process, and the backups behind them. Nothing that goes wrong here may
 * disturb the receiver: what is not known is looked for again.
 */
async function followRepository(
  repository: Repository,
  name: string,
  tracker: HeartbeatTracker,
  until: AbortSignal,
): Promise<void> {
  let newest: string | undefined
  while (!until.aborted) {
    newest = await noteNewestBackup({ repository, name, tracker, until }, newest).catch(() => newest)
    await systemClock.sleep(REPOSITORY_EVERY_MS, until).catch(() => undefined)
  }
}

/** Gives its id. At the first one also the gaps that lie behind it: those before it are nobody's concern any more. */
async function noteNewestBackup(
  where: { repository: Repository; name: string; tracker: HeartbeatTracker; until: AbortSignal },
  known: string | undefined,
): Promise<string | undefined> {
  const { repository, name, tracker, until } = where
  const id = await newestBackupId(repository, name)
  if (id === undefined || id === known) return known
  const manifest = await readManifest(repository, name, id)
  const branches = await listBranches(repository, name, { signal: until })
  const alike = branches.filter(({ path }) => path.incarnation === manifest.incarnation)
  for (const branch of known === undefined ? alike : []) {
    const gaps = await listGaps(repository, branch, { signal: until })
    for (const { from, to } of gaps) if (to > manifest.startLsn) tracker.noteGap(walLine(branch.head), { from, to })
  }
  const own = alike.find(({ path }) => path.branch === manifest.branch)
  if (own !== undefined) tracker.noteBackup(walLine(own.head), manifest.startLsn)
  return id
}

async function receive(configuration: Configuration, name: string, tracker: HeartbeatTracker): Promise<void> {
  const { system } = configuration
  const settings = configuration.components.find((each) => each.name === name)!
  const component = await resolveComponent(settings)
  const repository = await repositoryOf(configuration)
  const last = { acknowledged: 0, archived: 0 }
  const ended = new AbortController()
  const following = followRepository(repository, name, tracker, AbortSignal.any([signal, ended.signal]))
  const streaming = streamWal({
    repository,
    component,
    spoolDirectory: streamSpool(configuration.state, name),
    clock: systemClock,
    signal,
    onEvent: (event) => {
      tracker.noteEvent(event)
      if (isFrequent(event)) {
        const now = Date.now()
        if (now - last[event.kind] < POSITION_EVERY_MS) return
        last[event.kind] = now
      }
      if (event.kind !== 'stored') tell({ kind: 'event', system, component: name, at: Date.now(), event: eventJson(event) })
    },
  })
  try {
    await streaming
  } finally {
    ended.abort()
    await following
  }
}

function isFrequent(event: StreamEvent): event is Extract<StreamEvent, { kind: 'acknowledged' | 'archived' }> {
  return event.kind === 'acknowledged' || event.kind === 'archived'
}

/** Opened once for all components of a system: the key takes 128 MiB and a third of a second each time. */
async function repositoryOf(configuration: Configuration): Promise<Repository> {
  const opening = repositories.get(configuration) ?? openConfigured(configuration)
  repositories.set(configuration, opening)
  try {
    return await opening
  } catch (error) {
    repositories.delete(configuration)
    throw error
  }
}

/** What comes again by itself, with newer figures, may be left out. */
function isPassing(message: ReceiverMessage): boolean {
  return message.kind === 'exposures' || (message.kind === 'event' && PASSING.has(String(message.event['kind'])))
}

/** A supervisor that stands still must cost neither an acknowledgement nor memory without end. */
function tell(message: ReceiverMessage): void {
  if (!process.connected || unheard >= (isPassing(message) ? PASSING_UNHEARD_MAX : UNHEARD_MAX)) return
  unheard += 1
  process.send?.(message, undefined, undefined, () => (unheard -= 1))
}
