import { createHash, randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { z } from 'zod'
import { Failure, systemErrorCode } from '../errors.ts'
import { syncDirectory, writeNew } from '../protect/postgres/durable-file.ts'

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
/** What anybody but the owner may do. */
const OTHERS = 0o077

const schema = z.strictObject({
  url: z.string(),
  /** `name=value`. */
  cookie: z.string().regex(/^[\w-]{1,100}=[\w.-]{1,1000}$/),
  csrf: z.string().regex(/^[\w-]{1,200}$/),
})
/** A session of a person with one control plane, as this account keeps it from one command to the next. */
export type KeptSession = z.infer<typeof schema>

/** Undefined where there is none. Throws SECRET_UNREADABLE for what others could read or have put there. */
export async function readSession(url: string): Promise<KeptSession | undefined> {
  const path = join(await place(), nameOf(url))
  try {
    await requireOwnDirectory(dirname(path))
    await using file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    const found = await file.stat()
    if (!found.isFile() || found.uid !== process.getuid?.() || (found.mode & OTHERS) !== 0) {
      throw unreadable(path, 'it is not a file that this account alone may read')
    }
    const parsed = schema.safeParse(parseJson(await file.readFile('utf8')))
    if (parsed.success && parsed.data.url === url) return parsed.data
    throw unreadable(path, 'it is no session')
  } catch (error) {
    const code = systemErrorCode(error)
    if (code === 'ENOENT') return undefined
    throw error instanceof Failure || code === undefined ? error : unreadable(path, code, error)
  }
}

/** Durably, as a whole: whoever is killed has the secret before or this one. Throws SECRET_UNREADABLE, DIRECTORY_UNWRITABLE; CONTROL_PLANE_UNREACHABLE for what no control plane gives. */
export async function keepSession(session: KeptSession): Promise<void> {
  if (!schema.safeParse(session).success) {
    throw new Failure('CONTROL_PLANE_UNREACHABLE', `what answers at ${session.url} gives a session of an unknown form`)
  }
  const directory = await place()
  const path = join(directory, nameOf(session.url))
  const draft = `${path}.${randomBytes(6).toString('hex')}`
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await requireOwnDirectory(directory)
    await writeNew(draft, `${JSON.stringify(session)}\n`)
    await rename(draft, path)
    await syncDirectory(directory)
  } catch (error) {
    const code = systemErrorCode(error)
    if (error instanceof Failure || code === undefined) throw error
    await rm(draft, { force: true }).catch(() => undefined)
    throw new Failure('DIRECTORY_UNWRITABLE', `the session cannot be kept in "${directory}": ${code}`, {
      hint: 'XDG_RUNTIME_DIR may name another directory of this account',
      cause: error,
    })
  }
}

export async function forgetSession(url: string): Promise<void> {
  await rm(join(await place(), nameOf(url)), { force: true })
}

/** Under `sudo`, the environment may be of somebody else, who could change what root has there. */
async function place(): Promise<string> {
  const runtime = process.env.XDG_RUNTIME_DIR ?? ''
  const found = isAbsolute(runtime) ? await stat(runtime).catch(() => undefined) : undefined
  const isOurs = found?.isDirectory() === true && found.uid === process.getuid?.()
  return isOurs ? join(runtime, 'resus') : join(homedir(), '.local', 'state', 'resus')
}

async function requireOwnDirectory(path: string): Promise<void> {
  const found = await lstat(path)
  if (found.isDirectory() && found.uid === process.getuid?.() && (found.mode & OTHERS) === 0) return
  throw unreadable(path, 'it is not a directory that this account alone may enter')
}

function nameOf(url: string): string {
  return `session-${createHash('sha256').update(url).digest('hex').slice(0, 32)}.json`
}

function unreadable(path: string, why: string, cause?: unknown): Failure {
  return new Failure('SECRET_UNREADABLE', `the session in "${path}" is not used: ${why}`, {
    hint: 'remove it, and log on again ("resus log-on")',
    cause,
  })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
