import { randomBytes } from 'node:crypto'
import { open, readdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { Failure, systemErrorCode } from '../../errors.ts'
import type { KeyRing } from '../../repository/key-ring.ts'
import { damaged, openObject, sealObject } from '../../repository/sealed-object.ts'
import { branchHeadJson, parseBranchHead, type Branch } from '../../repository/wal-branch.ts'
import { syncDirectory } from './durable-file.ts'

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
  const known = await openSpoolBranch(directory, ring, name)
  // A damaged one is replaced: it says nothing that we do not know here.
  if (typeof known === 'object') return
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

/** The branches of every component that a spool holds, and the names of files that should tell and do not open. */
export async function listSpoolBranches(
  directory: string,
  ring: KeyRing,
): Promise<{ branches: readonly SpoolBranch[]; damaged: readonly string[] }> {
  const branches: SpoolBranch[] = []
  const damagedNames: string[] = []
  for (const name of await listDirectory(directory)) {
    if (!BRANCH_FILE.test(name)) continue
    const branch = await openSpoolBranch(directory, ring, name)
    if (branch === 'damaged') damagedNames.push(join(directory, name))
    else if (branch !== 'gone') branches.push(branch)
  }
  return { branches, damaged: damagedNames }
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

async function openSpoolBranch(directory: string, ring: KeyRing, name: string): Promise<SpoolBranch | 'gone' | 'damaged'> {
  try {
    return await readSpoolBranch(directory, ring, name)
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return 'gone'
    if (error instanceof Failure && error.code === 'OBJECT_DAMAGED') return 'damaged'
    throw error
  }
}

async function readSpoolBranch(directory: string, ring: KeyRing, name: string): Promise<SpoolBranch> {
  const stored = await readFile(join(directory, name))
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
