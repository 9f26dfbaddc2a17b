import { constants } from 'node:fs'
import { chmod, lchown, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { systemErrorCode } from '../../errors.ts'

// Files and directories that outlast a power cut, and those that a restore makes beside the backup's. Root may write where the server's user can change names: nothing goes through a link.

export interface FileOwner {
  readonly uid: number
  readonly gid: number
}

type Content = string | Uint8Array | AsyncIterable<string>

const { O_WRONLY, O_CREAT, O_EXCL, O_APPEND, O_NOFOLLOW } = constants

/** Makes a new file and makes it durable; what had its name, a link too, goes before. Root gives it to `owner`. */
export async function writeNew(
  path: string,
  content: Content,
  options: { readonly mode?: number; readonly owner?: FileOwner } = {},
): Promise<void> {
  await rm(path, { force: true })
  await using file = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  await file.writeFile(content)
  if (options.owner !== undefined && isRoot()) await file.chown(options.owner.uid, options.owner.gid)
  if (options.mode !== undefined) await file.chmod(options.mode)
  await file.sync()
}

/** Puts a file in the place of the one that is there, as a whole and durably: whoever reads it, also after a power cut, finds the one or the other. */
export async function replaceFile(path: string, text: string): Promise<void> {
  await writeNew(`${path}.new`, text)
  await rename(`${path}.new`, path)
  await syncDirectory(dirname(path))
}

/** Appends to a file, which is made when it is missing, and makes it durable. Throws ELOOP for a link. */
export async function appendDurably(path: string, text: string, owner?: FileOwner): Promise<void> {
  await using file = await open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0o600)
  await file.writeFile(text)
  if (owner !== undefined && isRoot()) await file.chown(owner.uid, owner.gid)
  await file.sync()
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r')
  await directory.sync()
}

/** A directory that others own, or that lies on what cannot be written to, was there long before us. */
const NOT_OURS = ['EACCES', 'EPERM', 'EROFS', 'EINVAL']

/** Makes the names durable of all directories that a path was made with. */
export async function syncAncestors(path: string): Promise<void> {
  for (let at = dirname(resolve(path)); ; at = dirname(at)) {
    await syncDirectory(at).catch((error: unknown) => {
      if (!NOT_OURS.includes(systemErrorCode(error) ?? '')) throw error
    })
    if (at === dirname(at)) return
  }
}

/** Makes a directory and those above it, so that a power cut takes none of them away with what is synced in it. */
export async function makeDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 })
  // Those that were there already, too: whoever made them may have died before the sync.
  await syncAncestors(path)
}

/** Root takes a directory for itself: until it gives it away nobody else changes a name in it, nor comes to what is below. */
export async function takeDirectory(path: string): Promise<void> {
  if (!isRoot()) return
  await lchown(path, 0, 0)
  await chmod(path, 0o700)
}

/** The last step: from here on the directory is the server's. */
export async function giveDirectory(path: string, mode: number, owner: FileOwner): Promise<void> {
  await chmod(path, mode)
  if (isRoot()) await lchown(path, owner.uid, owner.gid)
  await syncDirectory(path)
}

/** Only root may give files away; anybody else restores as the user that the server will run as. */
export function isRoot(): boolean {
  return process.getuid?.() === 0
}
