import { open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { Failure } from '../errors.ts'
import { BackgroundProcess } from './background-process.ts'
import { runCommand } from './command.ts'
import { noteProcess, type DemoDirectory } from './demo-directory.ts'
import { useServer, type HospitalServer } from './hospital-server.ts'

// The reference hospital, used as anybody would: by its command line and over HTTP. Resus imports nothing of it.

const HOSPITAL = fileURLToPath(new URL('../../hospital/src/main.ts', import.meta.url))
const LISTENS = /^the hospital listens at (http:\S+)$/m
const REQUEST_TIMEOUT_MS = 10_000
/** A line of the log of acknowledged writes is far shorter. */
const LINE_BYTES_MAX = 4096

/** Somebody who may ask the hospital. */
export interface HospitalUser {
  readonly id: string
  readonly facility: string
  readonly token: string
}

export interface Hospital {
  readonly server: HospitalServer
  readonly users: readonly HospitalUser[]
}

const acknowledgedSchema = z.object({ facility: z.string(), type: z.string(), id: z.string(), version: z.number().int() })
/** What a line of the log of acknowledged writes says, as far as we need it. */
export type AcknowledgedWrite = z.infer<typeof acknowledgedSchema>

const checkSchema = z.object({
  checks: z.array(
    z.object({ name: z.string(), verdict: z.enum(['passed', 'failed', 'not proven']), expected: z.string(), found: z.string() }),
  ),
})
export type HospitalJudgement = z.infer<typeof checkSchema>['checks'][number]

const lostSchema = z.object({ acknowledged: z.number().int(), lost: z.number().int() })

/** Fills the server with a hospital and gives each facility's clinician a token. */
export async function generateHospital(
  server: HospitalServer,
  options: { facilities: number; patients: number; seed: number; signal: AbortSignal },
): Promise<Hospital> {
  const { signal } = options
  const sizes = (['facilities', 'patients', 'seed'] as const).flatMap((name) => [`--${name}`, String(options[name])])
  await runHospital(server, ['generate', ...sizes], { signal })
  const clinicians = await useServer(server, async (client) => {
    const sql = `select id, facility from hospital.users where role = 'clinician' and active order by id`
    return (await client.query<{ id: string; facility: string }>(sql)).rows
  })
  const users: HospitalUser[] = []
  for (const { id, facility } of clinicians) {
    const { stdout } = await runHospital(server, ['token', id], { signal, isSecret: true })
    users.push({ id, facility, token: stdout.trim() })
  }
  return { server, users }
}

/** `hospital serve`, running, and where it listens. */
export interface HospitalService extends AsyncDisposable {
  readonly url: string
}

export async function startService({ server }: Hospital, signal: AbortSignal): Promise<HospitalService> {
  const logFile = server.directory.hospitalLog
  const { size: before } = await statOr(logFile)
  const args = hospitalArguments(server, ['serve', '--port', '0'])
  const running = BackgroundProcess.start({ name: 'hospital serve', args, logFile })
  await noteProcess(server.directory, 'service', running.pid)
  try {
    const url = await running.ready(async () => LISTENS.exec(await readFrom(logFile, before))?.[1], signal)
    return { url, [Symbol.asyncDispose]: async () => running.close() }
  } catch (error) {
    await running.close()
    throw error
  }
}

/** `hospital activity`, running: clinical events over HTTP, each in the log once the hospital has confirmed it. */
export function startActivity(
  hospital: Hospital,
  service: HospitalService,
  options: { rate: number; seed: number },
): BackgroundProcess {
  const { directory } = hospital.server
  // Not among the arguments, which everybody on this host can list.
  const environment = { HOSPITAL_TOKENS: hospital.users.map(({ token }) => token).join(' ') }
  const pace = ['--rate', String(options.rate), '--flat', '--seed', String(options.seed)]
  const args = [HOSPITAL, 'activity', '--url', service.url, ...pace, '--log', directory.acknowledgedLog]
  return BackgroundProcess.start({ name: 'hospital activity', args, logFile: directory.activityLog, environment })
}

/** Writes down how the hospital is now. */
export async function writeBaseline({ server }: Hospital, signal: AbortSignal): Promise<void> {
  await runHospital(server, ['check', '--only', 'counts', '--write-baseline', server.directory.baseline, '--json'], {
    signal,
    statuses: [0, 1],
  })
}

/** The command that judges a copy of the database: where that is, its environment says. Files are no part of a copy. */
export function copyCheck({ baseline, hospital }: DemoDirectory): string[] {
  const place = ['--home', hospital, '--database', 'postgres:///postgres']
  return [process.execPath, HOSPITAL, 'check', '--baseline', baseline, '--files', 'none', '--json', ...place]
}

/** What the hospital says of itself, against the baseline. */
export async function judgeHospital({ server }: Hospital, signal: AbortSignal): Promise<readonly HospitalJudgement[]> {
  const args = ['check', '--baseline', server.directory.baseline, '--json']
  const { stdout } = await runHospital(server, args, { signal, statuses: [0, 1] })
  return checkSchema.parse(JSON.parse(stdout)).checks
}

/** Of the writes in the log, how many the hospital no longer has. */
export async function countLost({ server }: Hospital, signal: AbortSignal): Promise<z.infer<typeof lostSchema>> {
  const args = ['lost', server.directory.acknowledgedLog, '--json']
  const { stdout } = await runHospital(server, args, { signal, statuses: [0, 1] })
  return lostSchema.parse(JSON.parse(stdout))
}

/** How many writes were acknowledged so far, and the last of them. A line that is not whole yet does not count. */
export async function readAcknowledged(logFile: string): Promise<{ count: number; last: AcknowledgedWrite | undefined }> {
  await using file = await open(logFile, 'r').catch(() => undefined)
  if (file === undefined) return { count: 0, last: undefined }
  let [count, end, position] = [0, 0, 0]
  for await (const piece of file.createReadStream({ autoClose: false }) as AsyncIterable<Buffer>) {
    for (let at = piece.indexOf(10); at >= 0; at = piece.indexOf(10, at + 1)) {
      count += 1
      end = position + at
    }
    position += piece.length
  }
  if (count === 0) return { count, last: undefined }
  const tail = Buffer.alloc(Math.min(end, LINE_BYTES_MAX))
  await file.read(tail, 0, tail.length, end - tail.length)
  const line = tail.toString('utf8').split('\n').at(-1) ?? ''
  return { count, last: acknowledgedSchema.parse(JSON.parse(line)) }
}

/** Asks the hospital over HTTP as somebody. Undefined when it does not answer, or says that it cannot now. */
export async function ask(
  service: HospitalService,
  request: { path: string; user?: HospitalUser; body?: object },
): Promise<{ status: number; body: unknown } | undefined> {
  const { path, user, body } = request
  try {
    const answer = await fetch(service.url + path, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        ...(user === undefined ? {} : { authorization: `Bearer ${user.token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/fhir+json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    })
    const text = await answer.text()
    return answer.status >= 500
      ? undefined
      : { status: answer.status, body: text === '' ? undefined : (JSON.parse(text) as unknown) }
  } catch {
    // No answer is what we are waiting for, or for the end of.
    return undefined
  }
}

/** Reads an acknowledged write back, and writes something new. Throws NOT_VERIFIED. */
export async function verifyTransaction(hospital: Hospital, service: HospitalService, write: AcknowledgedWrite): Promise<void> {
  const user = hospital.users.find(({ facility }) => facility === write.facility)
  if (user === undefined) throw new Failure('NOT_VERIFIED', `nobody of the facility ${write.facility} may ask`)
  const path = `/fhir/${write.type}/${write.id}/_history/${write.version}`
  const found = await ask(service, { path, user })
  if (found?.status !== 200)
    throw new Failure('NOT_VERIFIED', `the newest acknowledged write, ${path}, was lost: ${JSON.stringify(found)}`)
  const patient = { resourceType: 'Patient', active: true, name: [{ family: 'Recovery', given: ['First'] }], gender: 'unknown' }
  const written = await ask(service, { path: '/fhir/Patient', user, body: patient })
  if (written?.status !== 201) throw new Failure('NOT_VERIFIED', `the hospital took no new write: ${JSON.stringify(written)}`)
}

interface RunOptions {
  readonly signal: AbortSignal
  readonly statuses?: readonly number[]
  readonly isSecret?: boolean
}

async function runHospital(server: HospitalServer, args: readonly string[], options: RunOptions) {
  return await runCommand({
    name: 'hospital',
    args: hospitalArguments(server, args),
    logFile: server.directory.commandLog,
    ...options,
  })
}

function hospitalArguments({ directory, connection }: HospitalServer, args: readonly string[]): string[] {
  return [HOSPITAL, ...args, '--home', directory.hospital, '--database', connection]
}

async function statOr(path: string): Promise<{ size: number }> {
  await using file = await open(path, 'a', 0o600)
  return await file.stat()
}

async function readFrom(path: string, from: number): Promise<string> {
  await using file = await open(path, 'r')
  const { size } = await file.stat()
  const bytes = Buffer.alloc(Math.max(0, size - from))
  await file.read(bytes, 0, bytes.length, from)
  return bytes.toString('utf8')
}
