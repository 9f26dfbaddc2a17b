import { randomInt } from 'node:crypto'
import { lchown, lstat, opendir, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Account } from '../../postgres/cluster-process.ts'
import { isRoot } from './durable-file.ts'

// Whom a scratch server runs as. PostgreSQL needs no entry in the list of accounts, only that it is not root: so root takes a number that nobody has, which owns
// nothing but the scratch.

/** Numbers that nobody gives out: behind those of containers, and, where only so few are mapped, those of systemd's passing services. */
const RANGES = [
  { from: 1_879_048_192, to: 2_147_483_646 },
  { from: 61_184, to: 65_519 },
] as const
const TRIES = 20

/** The account of a server whose files belonged to `owner`; ours, unless we are root. */
export async function scratchAccount(owner: Account): Promise<Account> {
  if (!isRoot()) return { uid: process.getuid?.() ?? owner.uid, gid: process.getgid?.() ?? owner.gid }
  const taken = new Set([...(await numbersIn('/etc/passwd')), ...(await numbersIn('/etc/group')), ...(await runningUsers())])
  const mapped = await mappedNumbers()
  for (const { from, to } of RANGES) {
    if (!mapped.some((range) => range.from <= from && to <= range.to)) continue
    for (let count = 0; count < TRIES; count += 1) {
      const number = randomInt(from, to + 1)
      if (!taken.has(number)) return { uid: number, gid: number }
    }
  }
  return { uid: owner.uid, gid: owner.gid }
}

/** As root, before the server runs: everything in a tree, links themselves and not what they name. */
export async function giveTree(path: string, { uid, gid }: Account): Promise<void> {
  const info = await lstat(path).catch(() => undefined)
  if (info === undefined) return
  await lchown(path, uid, gid)
  if (!info.isDirectory()) return
  for await (const entry of await opendir(path)) {
    const below = join(path, entry.name)
    if (entry.isDirectory()) await giveTree(below, { uid, gid })
    else await lchown(below, uid, gid)
  }
}

/** The third field of each line: of accounts and of groups their number. */
async function numbersIn(path: string): Promise<number[]> {
  const text = await readFile(path, 'utf8').catch(() => '')
  return text.split('\n').map((line) => Number(line.split(':')[2]))
}

async function runningUsers(): Promise<number[]> {
  const names = (await readdir('/proc').catch((): string[] => [])).filter((name) => /^\d+$/.test(name))
  return await Promise.all(
    names.map(async (name) =>
      stat(`/proc/${name}`).then(
        ({ uid }) => uid,
        () => 0,
      ),
    ),
  )
}

/** A container may have few numbers. */
async function mappedNumbers(): Promise<{ from: number; to: number }[]> {
  const texts = await Promise.all(['uid_map', 'gid_map'].map((name) => readFile(`/proc/self/${name}`, 'utf8').catch(() => '')))
  const [users = [], groups = []] = texts.map((text) =>
    text
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/).map(Number))
      .map(([from = 0, , count = 0]) => ({ from, to: from + count - 1 })),
  )
  return users.filter((user) => groups.some(({ from, to }) => from <= user.from && user.to <= to))
}
