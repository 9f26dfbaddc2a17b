import { setTimeout as delay } from 'node:timers/promises'
import { stopCluster } from '../postgres/cluster-process.ts'
import type { BackupReport } from '../protect/postgres/backup.ts'
import { claimDirectory, noteReceiver, type DemoDirectory } from './demo-directory.ts'
import { hospitalSize, openHospital } from './hospital.ts'
import { checkHospital, takeBaseline, type Baseline } from './hospital-checks.ts'
import {
  COMPONENT,
  createServer,
  isReceiving,
  requireSynchronous,
  useServer,
  writeConfiguration,
  type HospitalServer,
} from './hospital-server.ts'
import { destroyServer, recover } from './recovery.ts'
import { reportJson, reportText, type DemoReport } from './report.ts'
import { Receiver, runResus } from './resus-command.ts'
import { WriteStream } from './write-stream.ts'

export interface DemoOptions {
  readonly root: string
  readonly once: boolean
  readonly keep: boolean
  readonly json: boolean
  readonly rows: number
  readonly seed: number
  readonly signal: AbortSignal
  /** A line of what happens, for people. */
  readonly say: (text: string) => void
  /** The report, to standard output. */
  readonly print: (text: string) => void
}

const FEEDS = 4
const WRITES_PER_SECOND = 300
/** Writes between two backups, and the bounds of the disaster's moment after the last. */
const BETWEEN_BACKUPS_MS = 1500
const DISASTER_AFTER_MS = { least: 1000, most: 4000 }
const STATUS_EVERY_MS = 15_000

interface VerifyOutcome {
  readonly blobsChecked: number
  readonly walObjectsChecked: number
  readonly problems: readonly unknown[]
}

/** The hospital opens, is protected, is destroyed, comes back, and is looked at. Gives the exit status. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const directory = await claimDirectory(options.root, options)
  const say = timed(options.say)
  options.say(`Resus demo, seed ${options.seed}: everything lives in "${directory.root}"`)
  // Closed in the reverse order: writes end, then the receiver, then the server.
  await using stack = new AsyncDisposableStack()
  stack.defer(async () => stopCluster({ directory: directory.cluster, mode: 'fast' }))

  const server = await createServer(directory)
  say(`PostgreSQL ${server.installation.version} runs`)
  const baseline = await openDoors(server, options, say)
  const receiver = await protect(server, stack, options)
  say(`protected: the repository is made, and no commit returns before Resus has it on disk`)

  const writes = await startWrites(server, stack, { options, lastSequences: Array.from({ length: FEEDS }, () => 0) })
  const backups = await takeBackups(directory, options, say)
  await verifyEverything(directory, options, say)

  const moment = disasterMoment(options.seed)
  say(`the disaster comes ${(moment / 1000).toFixed(2)} s from now, by the seed`)
  await delay(moment, undefined, { signal: options.signal })
  const fault = await destroyServer(server)
  say(`SIGKILL to every process of the server, its data directory deleted; ${writes.acknowledged} writes had been acknowledged`)
  const recovery = await recover(server, { writes, fault, signal: options.signal })
  say('the hospital is back; looking at everything')

  const { acknowledged } = recovery
  const { checks, acknowledgedLost } = await checkHospital(server, { baseline, acknowledged })
  const held = acknowledgedLost === 0 && checks.every(({ passed }) => passed)
  const report = { held, seed: options.seed, directory: directory.root, backups, recovery, acknowledgedLost, checks }
  options.print(options.json ? JSON.stringify(reportJson(report), null, 2) : reportText(report))
  if (held && !options.once) await goOn(server, { options, report, receiver, stack })
  return held ? 0 : 1
}

async function openDoors(server: HospitalServer, options: DemoOptions, say: (text: string) => void): Promise<Baseline> {
  return await useServer(server, async (client) => {
    const size = hospitalSize(options.rows)
    await openHospital(client, { size, seed: options.seed })
    const baseline = await takeBaseline(client)
    const { facility, patient, encounter, observation } = baseline.rows
    say(`the hospital opens: ${facility} facilities, ${patient} patients, ${encounter} encounters, ${observation} observations`)
    return baseline
  })
}

/** The receiver comes before the first backup: then there is no gap between what the two hold. */
async function protect(server: HospitalServer, stack: AsyncDisposableStack, options: DemoOptions): Promise<Receiver> {
  const { directory } = server
  await writeConfiguration(directory)
  await runResus(directory, 'init', [], options.signal)
  await runResus(directory, 'check', [COMPONENT], options.signal)
  return await arm(server, stack, options)
}

/** Starts a receiver, and makes the server wait for it at every commit. */
async function arm(server: HospitalServer, stack: AsyncDisposableStack, options: DemoOptions): Promise<Receiver> {
  const receiver = await Receiver.start(server.directory, COMPONENT)
  stack.defer(async () => receiver.close())
  await noteReceiver(server.directory, receiver.pid)
  await rearm(server, receiver, options)
  return receiver
}

/** After a recovery, the receiver that was there comes back to the server by itself. */
async function rearm(server: HospitalServer, receiver: Receiver, options: DemoOptions): Promise<void> {
  await useServer(server, async (client) => {
    await receiver.ready(() => isReceiving(client), options.signal)
    await requireSynchronous(client)
  })
}

async function startWrites(
  server: HospitalServer,
  stack: AsyncDisposableStack,
  more: { options: DemoOptions; lastSequences: readonly number[] },
): Promise<WriteStream> {
  const writes = new WriteStream({
    connection: server.connection,
    size: hospitalSize(more.options.rows),
    logFile: server.directory.acknowledgedLog,
    feeds: FEEDS,
    writesPerSecond: WRITES_PER_SECOND,
    lastSequences: more.lastSequences,
  })
  stack.defer(async () => writes.stop())
  await writes.start()
  return writes
}

async function takeBackups(directory: DemoDirectory, options: DemoOptions, say: (text: string) => void): Promise<BackupReport[]> {
  const backups: BackupReport[] = []
  for (const type of ['full', 'incremental', 'incremental']) {
    const report = await runResus<BackupReport>(directory, 'backup', [COMPONENT, '--type', type], options.signal)
    backups.push(report)
    const seconds = (Date.parse(report.finishedAt) - Date.parse(report.startedAt)) / 1000
    const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1)
    say(
      `${type} backup in ${seconds.toFixed(2)} s while writes go on: ${megabytes(report.bytesRead)} MB read, ${megabytes(report.bytesStored)} MB stored`,
    )
    await delay(BETWEEN_BACKUPS_MS, undefined, { signal: options.signal })
  }
  return backups
}

async function verifyEverything(directory: DemoDirectory, options: DemoOptions, say: (text: string) => void): Promise<void> {
  const outcome = await runResus<VerifyOutcome>(directory, 'verify', ['--all'], options.signal)
  say(`read back: ${outcome.blobsChecked} blobs, ${outcome.walObjectsChecked} WAL objects, ${outcome.problems.length} problems`)
}

/** The hospital goes on, protected again, until somebody ends it. */
async function goOn(
  server: HospitalServer,
  more: { options: DemoOptions; report: DemoReport; receiver: Receiver; stack: AsyncDisposableStack },
): Promise<void> {
  const { options, receiver, stack } = more
  await rearm(server, receiver, options)
  const lastSequences = await useServer(server, lastSequencesOf)
  const before = lastSequences.reduce((sum, sequence) => sum + sequence, 0)
  const writes = await startWrites(server, stack, { options, lastSequences })
  options.say(lookAround(server))
  while (!options.signal.aborted) {
    await delay(STATUS_EVERY_MS, undefined, { signal: options.signal }).catch(() => undefined)
    if (!options.signal.aborted)
      options.say(`${writes.acknowledged - before} more writes acknowledged, protected; Ctrl-C ends it`)
    if (writes.failedAtMs !== undefined) break
  }
  options.say(`The demo ends. What it leaves is in "${server.directory.root}"; the next one clears it.`)
}

async function lastSequencesOf(client: Parameters<typeof isReceiving>[0]): Promise<number[]> {
  const { rows } = await client.query<{ last: string }>(
    'select coalesce(max(o.feed_sequence), 0) as last from generate_series(1, $1) f left join observation o on o.feed = f group by f order by f',
    [FEEDS],
  )
  return rows.map(({ last }) => Number(last))
}

function lookAround(server: HospitalServer): string {
  const { directory, connection } = server
  return [
    '',
    'The hospital goes on, with writes and protection, until Ctrl-C. Look around:',
    `  psql "${connection}"`,
    ...['status', 'backups', 'verify --all'].map((verb) => `  ./resus ${verb} --config ${directory.configuration}`),
    `  ./resus restore --config ${directory.configuration} --to ${directory.root}/another`,
    `  ${directory.root}: server.log, stream.log, commands.log (all that was run), acknowledged.log`,
    '',
  ].join('\n')
}

/** From the seed alone: between the bounds, in ms. */
function disasterMoment(seed: number): number {
  const spread = DISASTER_AFTER_MS.most - DISASTER_AFTER_MS.least
  return DISASTER_AFTER_MS.least + ((Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) >>> 0) % spread)
}

function timed(say: (text: string) => void): (text: string) => void {
  const began = performance.now()
  return (text) => say(`${((performance.now() - began) / 1000).toFixed(1).padStart(6)} s  ${text}`)
}
