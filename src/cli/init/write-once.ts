import { randomBytes } from 'node:crypto'
import { link, lstat, mkdir, open, readdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { syncAncestors, syncDirectory } from '../../protect/postgres/durable-file.ts'

const STAGED = /^\.resus-init\.(\d+)\.[0-9a-f]{16}$/

/**
 * Makes a file of mode 0600 that outlasts a power cut: the whole file or none, and never over one that is there. False when there is one, a link too.
 * Throws DIRECTORY_UNWRITABLE.
 */
export async function writeOnce(path: string, text: string): Promise<boolean> {
  const staged = join(dirname(path), `.resus-init.${process.pid}.${randomBytes(8).toString('hex')}`)
  try {
    if (await isThere(path)) return false
    await using file = await open(staged, 'wx', 0o600)
    await file.writeFile(text)
    await file.chmod(0o600)
    await file.sync()
    // A link refuses what is there, which a rename would replace.
    await link(staged, path)
    return true
  } catch (cause) {
    if (systemErrorCode(cause) === 'EEXIST') return false
    throw unwritable(`cannot make "${path}"`, cause)
  } finally {
    await rm(staged, { force: true })
    await syncDirectory(dirname(path)).catch(() => undefined)
  }
}

/** Makes a directory of mode 0700, and durable; one that is there is left as it is. Gives the first that was made. Throws DIRECTORY_UNWRITABLE. */
export async function makeOwnDirectory(path: string): Promise<string | undefined> {
  try {
    const first = await mkdir(path, { recursive: true, mode: 0o700 })
    await syncAncestors(join(path, 'any'))
    return first
  } catch (cause) {
    throw unwritable(`cannot make the directory "${path}"`, cause)
  }
}

/** Removes what a run that was killed left half-written in a directory: it may hold a secret. */
export async function removeStaged(directory: string): Promise<void> {
  for (const name of await readdir(directory).catch((): string[] => [])) {
    const pid = Number(STAGED.exec(name)?.[1] ?? 0)
    if (pid > 0 && pid !== process.pid && !(await isThere(`/proc/${pid}`))) await rm(join(directory, name), { force: true })
  }
}

export async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR') return false
    throw unwritable(`cannot look at "${path}"`, error)
  }
}

function unwritable(action: string, cause: unknown): unknown {
  const code = systemErrorCode(cause)
  if (cause instanceof Failure || code === undefined) return cause
  return new Failure('DIRECTORY_UNWRITABLE', `${action}: ${code}`, {
    hint:
      code === 'EACCES' || code === 'EPERM'
        ? 'run it as root, which gives what it makes to the account of the server, or name places that this account may write to'
        : 'look at the disk and at the directories above it',
    cause,
  })
}
