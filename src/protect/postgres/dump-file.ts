import { spawn, type ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { constants, createReadStream, createWriteStream } from 'node:fs'
import { access, link, lstat, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { PassThrough } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createGzip } from 'node:zlib'
import { Failure, systemErrorCode } from '../../errors.ts'
import type { Account } from '../../postgres/cluster-process.ts'
import { isRoot, syncDirectory } from './durable-file.ts'

// The file of a dump. It is written under a name of its own, `<file>.<random>.partial`, and gets its name when the program that dumps has ended well and all of it
// was read back: a dump that was cut off looks like a whole one to whoever sees only that it is there.

const SAID_BYTES_MAX = 8192
/** What the last lines of a plain dump are, of a database and of globals. */
const PLAIN_END = /-- PostgreSQL database (cluster )?dump complete\s+(--\s*)?(\\unrestrict \S+\s*)?$/
const PLAIN_TAIL_BYTES = 1024

export interface DumpTool {
  readonly program: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** Whom it runs as when we are root. */
  readonly owner: Account
  readonly signal: AbortSignal
}

export interface DumpFile {
  readonly path: string
  /** Compress what the program gives. */
  readonly gzipLevel?: number
  readonly onBytes: (bytes: number) => void
  /** Throws when the file under this path is no whole dump. */
  readonly check: (path: string) => Promise<void>
}

/** Before the hours that a restore may take: throws ARGUMENTS_INVALID when there is something under a path, or no directory that can be written to. */
export async function assertNoFile(path: string): Promise<void> {
  if (await exists(path)) throw fileExists(path)
  if (!(await exists(dirname(path)))) {
    throw new Failure('ARGUMENTS_INVALID', `the directory "${dirname(path)}" of --to does not exist`, {
      hint: 'make it, or name another',
    })
  }
  try {
    await access(dirname(path), constants.W_OK | constants.X_OK)
  } catch (error) {
    throw explained(error, path)
  }
}

/** Runs a program that dumps, into a file that is there whole, checked and durable, or not at all. Throws POSTGRES_FAILED, DISK_FULL. */
export async function dumpToFile(tool: DumpTool, file: DumpFile): Promise<{ bytes: number; sha256: string }> {
  const partial = `${file.path}.${randomBytes(4).toString('hex')}.partial`
  try {
    const written = await writePartial(tool, partial, file)
    await file.check(partial)
    // Refuses what exists, unlike rename.
    await link(partial, file.path)
    await rm(partial)
    await syncDirectory(dirname(file.path))
    return written
  } catch (error) {
    await rm(partial, { force: true })
    throw explained(error, file.path)
  }
}

/** Reads a dump back: of the custom format all of it, by pg_restore; of a plain one its compression's checksum and its last line. Throws POSTGRES_FAILED. */
export async function checkArchive(
  path: string,
  how: { kind: 'custom'; program: string; signal: AbortSignal } | { kind: 'plain'; signal: AbortSignal },
): Promise<void> {
  const failed = (why: string) =>
    new Failure('POSTGRES_FAILED', `the dump is not whole: ${why}`, { hint: 'nothing was kept; run it again' })
  if (how.kind === 'custom') {
    const child = spawn(how.program, ['--file=/dev/null', path], { stdio: ['ignore', 'ignore', 'pipe'], signal: how.signal })
    const { outcome, said } = await ended(child)
    how.signal.throwIfAborted()
    if (outcome !== 'ended with status 0') throw failed(`pg_restore ${outcome}: ${said}`)
    return
  }
  let tail: Buffer = Buffer.alloc(0)
  try {
    await pipeline(
      createReadStream(path),
      createGunzip(),
      async (pieces: AsyncIterable<Buffer>) => {
        for await (const piece of pieces) tail = Buffer.concat([tail, piece]).subarray(-PLAIN_TAIL_BYTES)
      },
      { signal: how.signal },
    )
  } catch (error) {
    how.signal.throwIfAborted()
    throw failed(error instanceof Error ? error.message : String(error))
  }
  if (!PLAIN_END.test(tail.toString('utf8'))) throw failed('its last line is missing')
}

async function writePartial(tool: DumpTool, partial: string, file: DumpFile): Promise<{ bytes: number; sha256: string }> {
  const { program, args, env, owner, signal } = tool
  const account = isRoot() ? { uid: owner.uid, gid: owner.gid } : {}
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], ...account })
  const end = ended(child)
  const hash = createHash('sha256')
  let bytes = 0
  const measure = async function* (pieces: AsyncIterable<Buffer>) {
    for await (const piece of pieces) {
      hash.update(piece)
      bytes += piece.length
      file.onBytes(bytes)
      yield piece
    }
  }
  const compress = file.gzipLevel === undefined ? new PassThrough() : createGzip({ level: file.gzipLevel })
  const written = createWriteStream(partial, { flags: 'wx', mode: 0o600, flush: true })
  try {
    await pipeline(child.stdout, compress, measure, written, { signal })
  } catch (error) {
    child.kill('SIGTERM')
    await end
    signal.throwIfAborted()
    throw error
  }
  const { outcome, said } = await end
  if (outcome === 'ended with status 0') return { bytes, sha256: hash.digest('hex') }
  throw new Failure('POSTGRES_FAILED', `${program} ${outcome}: ${said}`, { hint: 'nothing was kept of this dump' })
}

/** How a program ended, and what it said about it. Listens at once. */
async function ended(child: ChildProcess): Promise<{ outcome: string; said: string }> {
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-SAID_BYTES_MAX)))
  const outcome = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`could not be run: ${error.message}`))
    child.once('close', (status, by) => resolve(by === null ? `ended with status ${status}` : `was ended by ${by}`))
  })
  return { outcome, said: said.trim() }
}

function explained(error: unknown, path: string): unknown {
  const code = systemErrorCode(error)
  if (code === 'EEXIST') return fileExists(path)
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new Failure('DISK_FULL', `there is no room for the dump "${path}" (${code})`, {
      hint: 'make room, or name a file on another disk; nothing was kept',
      cause: error,
    })
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new Failure('ARGUMENTS_INVALID', `cannot write the dump "${path}" (${code})`, {
      hint: 'name a file that you may write',
      cause: error,
    })
  }
  return error
}

function fileExists(path: string): Failure {
  return new Failure('ARGUMENTS_INVALID', `"${path}" exists, and a dump overwrites nothing`, { hint: 'name another file: --to' })
}

async function exists(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    () => false,
  )
}
