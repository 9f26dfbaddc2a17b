import { randomBytes } from 'node:crypto'
import { open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { systemErrorCode } from '../../errors.ts'
import type { KeyRing } from '../../repository/keys.ts'
import { damaged, openObject, sealObject } from '../../repository/sealed-object.ts'
import { branchHeadJson, parseBranchHead, type Branch } from '../../repository/wal-branch.ts'

// `<branch>.branch` in a spool: a sealed object of kind 4 whose name is the file's. It says of which component and branch the
// spool files of that name are, so that a restore on the same host can find them although the receiver is dead.

const BRANCH_FILE = /^[0-9a-f]{16}\.branch$/

export interface SpoolBranch {
  /** The component's name. */
  readonly component: string
  readonly branch: Branch
}

const folder = z.string().regex(/^[0-9a-f]{16}$/)
const spoolBranchSchema = z.object({
  component: z.string(),
  path: z.object({ component: folder, incarnation: folder, branch: folder }),
  head: z.unknown(),
})

/** Notes which branch the spool holds, before its first byte. Twice is as good as once. */
export async function writeSpoolBranch(directory: string, ring: KeyRing, { component, branch }: SpoolBranch): Promise<void> {
  const name = `${branch.path.branch}.branch`
  const known = await readSpoolBranch(directory, ring, name)
  if (known !== undefined) return
  const head = { component, path: branch.path, head: branchHeadJson(branch.head) }
  const pieces: Uint8Array[] = []
  for await (const piece of sealObject(ring, { kind: 'branch', name, head })) pieces.push(piece)
  const temporary = join(directory, `${name}.${randomBytes(4).toString('hex')}.new`)
  {
    await using file = await open(temporary, 'wx', 0o600)
    await file.writeFile(Buffer.concat(pieces))
    await file.sync()
  }
  await rename(temporary, join(directory, name))
  await syncDirectory(directory)
}

/** The branches that a spool holds, of every component; none when there is no such directory. Throws OBJECT_DAMAGED. */
export async function listSpoolBranches(directory: string, ring: KeyRing): Promise<SpoolBranch[]> {
  const branches: SpoolBranch[] = []
  for (const name of await listDirectory(directory)) {
    if (!BRANCH_FILE.test(name)) continue
    const branch = await readSpoolBranch(directory, ring, name)
    if (branch !== undefined) branches.push(branch)
  }
  return branches
}

export async function removeSpoolBranch(directory: string, branch: Branch): Promise<void> {
  await rm(join(directory, `${branch.path.branch}.branch`), { force: true })
}

/** Names in a directory, sorted; none when it is not there. */
export async function listDirectory(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).toSorted()
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return []
    throw error
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  await using handle = await open(directory, 'r')
  await handle.sync()
}

async function readSpoolBranch(directory: string, ring: KeyRing, name: string): Promise<SpoolBranch | undefined> {
  let stored: Buffer
  try {
    stored = await readFile(join(directory, name))
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
  const { head, body } = await openObject(ring, { kind: 'branch', name }, single(stored))
  // Reading the (empty) body to its end proves that the file is whole.
  for await (const piece of body) void piece
  const parsed = spoolBranchSchema.safeParse(head)
  if (!parsed.success) throw damaged(name, `its head is not that of a branch in a spool: ${parsed.error.issues[0]?.message}`)
  const { component, path } = parsed.data
  return { component, branch: { path, head: parseBranchHead(name, parsed.data.head) } }
}

async function* single(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}
