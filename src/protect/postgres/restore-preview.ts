import { resolve } from 'node:path'
import { systemErrorCode } from '../../errors.ts'
import { findInstallation } from '../../postgres/installation.ts'
import { formatLsn } from '../../postgres/lsn.ts'
import { microsToMs } from '../../postgres/timestamp.ts'
import { streamSpool } from './component.ts'
import { planRecovery, type PlannedRecovery } from './recovery-plan.ts'
import { overriddenSettings } from './recovery-settings.ts'
import { describeTarget, type RecoveryAction } from './recovery-target.ts'
import { previewSafetyCopy } from './restore-safeguard.ts'
import type { RestoreOptions } from './restore.ts'
import { withLocalWal, type UsedLocalWal } from './restore-local-wal.ts'
import { freeBytes, inspectPlaces, placeFailure, placesOf, ROOM_FOR_WAL_BYTES } from './restore-place.ts'
import { differencesHere } from './installed-versions.ts'
import type { VersionDifference } from './server-versions.ts'
import { withSpool, type UnpublishedWal } from './spool-supply.ts'
import { judgeMadeTablespaces } from './tablespaces-in-wal.ts'
import { placeTablespaces } from './tablespace-map.ts'
import { greatestCommitBefore } from './wal-search.ts'
import { unitsOf } from './wal-stretch.ts'
import { repositoryWal } from './wal-supply.ts'

/** How often a living receiver may delete files under us. */
const ROUNDS_MAX = 20

/** What a restore would do: what `restore --preview --json` prints. */
export interface RestorePreview {
  /** Whether the restore would begin; false says that `problems` have to be mended first. */
  readonly possible: boolean
  readonly problems: readonly string[]
  readonly backup: { readonly id: string; readonly type: string; readonly stopTime: string; readonly stopLsn: string }
  readonly target: string
  readonly action: RecoveryAction
  readonly timeline: number
  readonly bytesToWrite: number
  readonly filesToWrite: number
  /** Of the file system of the data directory; the files and `roomForWalBytes` have to fit. */
  readonly bytesFree: number
  readonly roomForWalBytes: number
  readonly wal: PreviewedWal
  readonly loss: PreviewedLoss
  readonly directory: PreviewedPlace
  /** What is there would be copied first. */
  readonly safetyCopy: { readonly path: string; readonly bytes: number } | null
  readonly tablespaces: readonly (PreviewedPlace & { readonly oid: string; readonly source: string })[]
  /** Settings of the cluster that are overridden. */
  readonly settings: Readonly<Record<string, string>>
  /** PostgreSQL's programs of the backup's major version on this host. */
  readonly installation: { readonly version: string; readonly binDirectory: string } | null
  readonly differences: readonly VersionDifference[]
  readonly notices: readonly string[]
}

export interface PreviewedWal {
  readonly fromLsn: string
  /** Recovery replays everything before it. */
  readonly endLsn: string
  readonly bytes: number
  readonly segments: number
  /** The greatest commit time noted in what is replayed; null when none was found near its end. */
  readonly lastCommit: string | null
}

export interface PreviewedLoss {
  /** What the receiver had acknowledged to the server, as far as the repository and this host's spool tell; null when nothing does. */
  readonly acknowledgedLsn: string | null
  /** Acknowledged WAL that recovery does not replay. */
  readonly bytesNotReplayed: number | null
  /** Acknowledged WAL that is neither in the repository nor on this host, at least; null when nothing tells, or recovery is to stop earlier. */
  readonly bytesLost: number | null
  /** From the last commit that is replayed to the target's time. */
  readonly secondsBeforeTarget: number | null
  /** In this host's spool, and not in the repository yet: the restore publishes it first. */
  readonly spool: readonly { readonly timeline: number; readonly bytes: number; readonly acknowledgedLsn: string }[]
  /** Only in the pg_wal of the cluster that `delta` goes over: the restore publishes it first. */
  readonly localWal: readonly {
    readonly directory: string
    readonly timeline: number
    readonly bytes: number
    readonly endLsn: string
  }[]
}

export interface PreviewedPlace {
  readonly path: string
  readonly state: string
}

/**
 * Says what `restorePostgres` would do with the same options, and touches nothing: no directory, no spool, no local state. Throws what that
 * throws when the target cannot be reached; whatever else is in the way is one of the `problems`.
 */
export async function previewRestore(options: RestoreOptions): Promise<RestorePreview> {
  for (let round = 1; ; round += 1) {
    try {
      return await lookAhead(options)
    } catch (error) {
      // A living receiver deleted a spool file that we were about to read, having stored its segment: look again.
      if (systemErrorCode(error) !== 'ENOENT' || round === ROUNDS_MAX) throw error
    }
  }
}

async function lookAhead(options: RestoreOptions): Promise<RestorePreview> {
  const { repository, component, action = 'promote' } = options
  const directory = resolve(options.to)
  const spool = await withSpool(repositoryWal(repository, component.name, options.signal), {
    directory: streamSpool(options.stateDirectory, component.name),
    component: component.name,
    ring: repository.ring,
  })
  const usesLocal = options.delta === true && options.withoutLocalWal !== true
  const local = usesLocal ? await withLocalWal(spool.supply, { directory, signal: options.signal }) : undefined
  const planned = await planRecovery({ ...options, component: component.name, supply: local?.supply ?? spool.supply })
  const { manifest, plan } = planned
  const mappings = options.tablespaceMappings ?? []
  const tablespaces = placeTablespaces({ tablespaces: manifest.tablespaces, mappings, directory })
  const places = await inspectPlaces(placesOf(directory, tablespaces), options.delta === true ? manifest : undefined)
  const bytesFree = await freeBytes(directory)
  const problems = places.flatMap(({ place, state }) => placeFailure(place, state, directory)?.message ?? [])
  const made = planned.madeTablespaces
  const judged = await judgeMadeTablespaces({ made, directory, tablespaces, confined: options.confined === true })
  problems.push(...judged.problems.map((failure) => `${failure.message}: ${failure.hint}`))
  const overCluster = places[0]?.state.kind === 'cluster'
  const safetyCopy = overCluster ? await previewSafetyCopy(options, directory) : undefined
  const fits = options.delta === true || bytesFree >= manifest.totals.bytes + ROOM_FOR_WAL_BYTES || tablespaces.length > 0
  if (!fits) problems.push(`there is no room for the restored cluster in "${directory}"`)
  const installation = await findInstallation(manifest.server.major, component.binaries)
  const { id, type, stopTime, stopLsn } = manifest
  const [data, ...others] = places.map(({ place, state }) => ({ path: place.path, state: state.kind }))
  const corrupt = manifest.totals.corruptPages
  return {
    possible: problems.length === 0,
    problems,
    backup: { id, type, stopTime, stopLsn: formatLsn(stopLsn) },
    target: describeTarget(options.target),
    action,
    timeline: plan.timeline,
    bytesToWrite: manifest.totals.bytes,
    filesToWrite: manifest.totals.files,
    bytesFree,
    roomForWalBytes: ROOM_FOR_WAL_BYTES,
    ...(await previewWal(options, planned, { unpublished: spool.unpublished, local: local?.local ?? [] })),
    directory: data!,
    safetyCopy: safetyCopy?.copy ?? null,
    tablespaces: tablespaces.map(({ oid, source }, index) => ({ oid, source, ...others[index]! })),
    settings: { ...planned.manifest.server.commandLine, ...overriddenSettings({ ...options, ...planned }) },
    installation: installation === undefined ? null : { version: installation.version, binDirectory: installation.binDirectory },
    differences: await differencesHere(manifest.server, installation),
    notices: [
      ...planned.notices,
      ...judged.notices,
      ...(local?.notices ?? []),
      ...spool.damaged.map((path) => `spool file "${path}" is damaged: what still opens would be published`),
      ...(safetyCopy?.notices ?? []),
      ...(corrupt > 0 ? [`the backup holds ${corrupt} pages that were corrupt on the server already`] : []),
    ],
  }
}

async function previewWal(
  { target }: RestoreOptions,
  { manifest, stretches, endLsn, acknowledgedLsn, bytesLost }: PlannedRecovery,
  { unpublished, local }: { unpublished: readonly UnpublishedWal[]; local: readonly UsedLocalWal[] },
): Promise<{ wal: PreviewedWal; loss: PreviewedLoss }> {
  const commit = await greatestCommitBefore(stretches, endLsn)
  const lastCommitMs = commit === null ? null : microsToMs(commit)
  const segments = unitsOf(stretches).filter(({ from, to }) => from < endLsn && to > manifest.startLsn).length
  const here = unpublished.filter(({ timeline }) => timeline === stretches.at(-1)!.branch.head.timeline)
  const acknowledged = here.reduce(
    (greatest, each) => (greatest === null || each.acknowledged > greatest ? each.acknowledged : greatest),
    acknowledgedLsn,
  )
  const behind = acknowledged === null ? null : Math.max(0, Number(acknowledged - endLsn))
  const targetMs = target.kind === 'time' ? microsToMs(target.micros) : null
  return {
    wal: {
      fromLsn: formatLsn(manifest.startLsn),
      endLsn: formatLsn(endLsn),
      bytes: Number(endLsn - manifest.startLsn),
      segments,
      lastCommit: lastCommitMs === null ? null : new Date(lastCommitMs).toISOString(),
    },
    loss: {
      acknowledgedLsn: acknowledged === null ? null : formatLsn(acknowledged),
      bytesNotReplayed: behind,
      bytesLost,
      secondsBeforeTarget:
        targetMs === null || lastCommitMs === null ? null : Math.max(0, Math.round((targetMs - lastCommitMs) / 1000)),
      spool: unpublished.map(({ timeline, sizeBytes, acknowledged: lsn }) => ({
        timeline,
        bytes: sizeBytes,
        acknowledgedLsn: formatLsn(lsn),
      })),
      localWal: local.map(({ directory, timeline, sizeBytes, endLsn: end }) => ({
        directory,
        timeline,
        bytes: sizeBytes,
        endLsn: formatLsn(end),
      })),
    },
  }
}
