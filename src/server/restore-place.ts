import { mkdir, realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'

/**
 * Where a restore that the API asks for goes: the directory of this name below the first of this node's `restoreRoots`. Asked on the node that answers, and
 * again on the one that restores: it is that one's file, and no request, that says where. Throws ARGUMENTS_INVALID.
 */
export async function restorePlace(restoreRoots: readonly string[], name: string): Promise<string> {
  const [root] = restoreRoots
  if (root === undefined) {
    throw new Failure('ARGUMENTS_INVALID', 'this node may restore nowhere: its server.yaml names no restoreRoots', {
      hint: 'add a directory to restoreRoots, or run "resus restore" on the host',
    })
  }
  await mkdir(root, { recursive: true, mode: 0o711 })
  if ((await realpath(root)) === root) return join(root, name)
  throw new Failure('ARGUMENTS_INVALID', `"${root}" of restoreRoots leads through a symbolic link`, {
    hint: 'name the directory itself in server.yaml',
  })
}

/** The same for a new restore: nothing is there yet. Throws DIRECTORY_NOT_EMPTY. */
export async function newRestorePlace(restoreRoots: readonly string[], name: string): Promise<string> {
  const place = await restorePlace(restoreRoots, name)
  const taken = await stat(place).catch(() => undefined)
  if (taken === undefined) return place
  throw new Failure('DIRECTORY_NOT_EMPTY', `"${name}" is there already`, { hint: 'choose another name' })
}
