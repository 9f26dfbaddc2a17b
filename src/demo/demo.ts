import { setTimeout as delay } from 'node:timers/promises'
import { stopCluster } from '../postgres/cluster-process.ts'
import type { BackupReport } from '../protect/postgres/backup.ts'
import type { BackgroundProcess } from './background-process.ts'
import { startControlPlane, type ControlPlane } from './control-plane.ts'
import { claimDirectory, noteProcess, type DemoDirectory } from './demo-directory.ts'
import { startHeartbeat } from './heartbeat.ts'
import { checkHospital } from './hospital-checks.ts'
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
import {
  copyCheck,
  generateHospital,
  readAcknowledged,
  startActivity,
  startService,
  writeBaseline,
  type Hospital,
  type HospitalService,
} from './reference-hospital.ts'
import { rehearse } from './rehearsal.ts'
import { reportJson, reportText, type DemoReport } from './report.ts'
import { runResus, startReceiver } from './resus-command.ts'

export interface DemoOptions {
  readonly root: string
  readonly once: boolean
  readonly keep: boolean
  readonly json: boolean
  readonly facilities: number
  readonly patients: number
  readonly seed: number
  readonly signal: AbortSignal
  /** A line of what happens, for people. */
  readonly say: (text: string) => void
  /** The report, to standard output. */
  readonly print: (text: string) => void
}

/** Clinical events a second. */
const RATE = 50
/** Written between two backups, and the bounds of the disaster's moment after the last. */
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
  const { signal } = options
  const directory = await claimDirectory(options.root, options)
  const say = timed(options.say)
  options.say(`Resus demo, seed ${options.seed}: everything lives in "${directory.root}"`)
  // Closed in the reverse order: the activity ends, then the service, the receiver, and the server.
  await using stack = new AsyncDisposableStack()
  stack.defer(async () => stopCluster({ directory: directory.cluster, mode: 'fast' }))

  const server = await createServer(directory)
  say(`PostgreSQL ${server.installation.version} runs`)
  const hospital = await openDoors(server, options, say)
  const receiver = await protect(server, stack, options)
  stack.use(await startHeartbeat(server))
  say(`protected: the repository is made, and no commit returns before Resus has it on disk`)

  const service = stack.use(await startService(hospital, signal))
  const activity = await beActive(hospital, { service, stack, options })
  say(`the hospital is open at ${service.url}, and ${RATE} clinical events a second come in`)
  const backups = await takeBackups(directory, options, say)
  await verifyEverything(directory, options, say)

  const moment = disasterMoment(options.seed)
  say(`the disaster comes ${(moment / 1000).toFixed(2)} s from now, by the seed`)
  await delay(moment, undefined, { signal })
  const fault = await destroyServer(server)
  say(`SIGKILL to every process of the server, its data directory deleted; clinical events go on coming`)
  const recovery = await recover(hospital, { service, fault, signal })
  say('the hospital is back; looking at everything')

  await activity.close()
  const { checks, acknowledged } = await checkHospital(hospital, signal)
  const ofHospital = acknowledged.lost === 0 && checks.every(({ verdict }) => verdict !== 'failed')
  say('a drill: the newest moment once more, into a scratch place, judged by the hospital')
  const rehearsal = await rehearse(directory, signal)
  const held = ofHospital && rehearsal.drill.verdict === 'verified' && rehearsal.evidence.verdict === 'verified'
  const report = { held, rehearsal, seed: options.seed, directory: directory.root, backups, recovery, acknowledged, checks }
  options.print(options.json ? JSON.stringify(reportJson(report), null, 2) : reportText(report))
  if (held && !options.once) await goOn(hospital, { service, options, report, receiver, stack })
  return held ? 0 : 1
}

async function openDoors(server: HospitalServer, options: DemoOptions, say: (text: string) => void): Promise<Hospital> {
  const { facilities, patients } = options
  const hospital = await generateHospital(server, options)
  await writeBaseline(hospital, options.signal)
  const events = await useServer(server, async (client) => {
    const { rows } = await client.query<{ events: string }>('select count(*) as events from hospital.events')
    return rows[0]?.events
  })
  say(`the hospital is made: ${facilities} facilities, ${patients} patients, ${events} events in three years`)
  return hospital
}

/** The receiver comes before the first backup: then there is no gap between what the two hold. */
async function protect(server: HospitalServer, stack: AsyncDisposableStack, options: DemoOptions): Promise<BackgroundProcess> {
  const { directory } = server
  await writeConfiguration(directory, copyCheck(directory))
  await runResus(directory, 'init', [], options.signal)
  await runResus(directory, 'check', [COMPONENT], options.signal)
  const receiver = startReceiver(directory, COMPONENT)
  stack.defer(async () => receiver.close())
  await noteProcess(directory, 'receiver', receiver.pid)
  await arm(server, receiver, options)
  return receiver
}

/** Makes the server wait for the receiver at every commit. After a recovery, the one that was there comes back by itself. */
async function arm(server: HospitalServer, receiver: BackgroundProcess, options: DemoOptions): Promise<void> {
  await useServer(server, async (client) => {
    await receiver.ready(() => isReceiving(client), options.signal)
    await requireSynchronous(client)
  })
}

async function beActive(
  hospital: Hospital,
  more: { service: HospitalService; stack: AsyncDisposableStack; options: DemoOptions },
): Promise<BackgroundProcess> {
  const { service, stack, options } = more
  const { directory } = hospital.server
  const { count: before } = await readAcknowledged(directory.acknowledgedLog)
  const activity = startActivity(hospital, service, { rate: RATE, seed: options.seed })
  stack.defer(async () => activity.close())
  await noteProcess(directory, 'activity', activity.pid)
  await activity.ready(async () => (await readAcknowledged(directory.acknowledgedLog)).count > before, options.signal)
  return activity
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

/** The hospital goes on, protected by the control plane, until somebody ends it. */
async function goOn(
  hospital: Hospital,
  more: {
    service: HospitalService
    options: DemoOptions
    report: DemoReport
    receiver: BackgroundProcess
    stack: AsyncDisposableStack
  },
): Promise<void> {
  const { service, options, receiver, stack } = more
  const { server } = hospital
  // The control plane receives from here on: it finds the slot free, and what the one before it kept.
  await receiver.close()
  const plane = stack.use(await startControlPlane(server.directory, options.signal))
  await arm(server, plane.process, options)
  await beActive(hospital, { service, stack, options })
  const { count: before } = await readAcknowledged(server.directory.acknowledgedLog)
  options.say(lookAround(hospital, service, plane))
  while (!options.signal.aborted) {
    await delay(STATUS_EVERY_MS, undefined, { signal: options.signal }).catch(() => undefined)
    if (options.signal.aborted) break
    const { count } = await readAcknowledged(server.directory.acknowledgedLog)
    options.say(`${count - before} more writes acknowledged, protected; Ctrl-C ends it`)
  }
  options.say(`The demo ends. What it leaves is in "${server.directory.root}"; the next one clears it.`)
}

function lookAround({ server, users }: Hospital, service: HospitalService, plane: ControlPlane): string {
  const { directory, connection } = server
  const user = users[0]
  return [
    '',
    'The hospital goes on, with clinical events and protection, until Ctrl-C. Look around:',
    `  curl -H "Authorization: Bearer ${user?.token}" "${service.url}/fhir/Patient?_count=3"     # as ${user?.id}`,
    `  ${plane.url} in a browser (any name, the token as password), or`,
    `  curl -H "Authorization: Bearer ${plane.token}" "${new URL('/api/v1/backup-dr/backups/status', plane.url).href}"`,
    `  psql "${connection}"`,
    ...['status', 'backups', 'verify --all'].map((verb) => `  ./resus ${verb} --config ${directory.configuration}`),
    `  ./resus restore --config ${directory.configuration} --to ${directory.root}/another`,
    `  ${directory.root}: server.log, stream.log, control-plane.log, hospital.log, activity.log, commands.log (all that was run), acknowledged.log`,
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
