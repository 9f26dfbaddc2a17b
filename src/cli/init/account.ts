import { readFileSync } from 'node:fs'
import { lchown, stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Configuration } from '../../config/configuration.ts'
import { Failure } from '../../errors.ts'
import type { Account } from '../../postgres/cluster-process.ts'
import { assertReachable } from '../../postgres/staged-runtime.ts'
import { isThere, makeOwnDirectory } from './write-once.ts'

const CHECKOUT = fileURLToPath(new URL('../../..', import.meta.url))

/**
 * Goes on as the account of the server: PostgreSQL does not run as root, lets that account in by its socket, and Resus runs as it from then on. As root the
 * `directories` that are missing are made first, and given to it; what is there is left as it is. Never back. Throws ARGUMENTS_INVALID.
 */
export async function becomeAccount(account: Account, directories: readonly string[]): Promise<void> {
  const uid = process.getuid?.()
  if (uid === undefined || uid === account.uid) return
  if (uid !== 0) {
    const what = `the server belongs to ${nameOf(account)}, and this is ${userInfo().username}`
    throw new Failure('ARGUMENTS_INVALID', what, {
      hint: `run it as root, or as ${nameOf(account)}: sudo -u ${nameOf(account)} ...`,
    })
  }
  await assertReachable(CHECKOUT)
  for (const path of directories) await giveMissing(path, account)
  const entry = accountEntry(account)
  // Ours may be closed to it.
  process.chdir('/')
  if (entry === undefined) process.setgroups?.([account.gid])
  // Debian's postgres reads its TLS key as a member of ssl-cert.
  else (process as { initgroups?: (name: string, gid: number) => void }).initgroups?.(entry.name, account.gid)
  process.setgid?.(account.gid)
  process.setuid?.(account.uid)
  Object.assign(process.env, { HOME: entry?.home ?? '/', USER: nameOf(account), LOGNAME: nameOf(account) })
  // Root's own: compiled code is taken from it, and kept in it.
  delete process.env.NODE_COMPILE_CACHE
}

/** Goes on as the account of the first component's server; where its data directory is gone (a disaster, another machine), as that of the repository. */
export async function becomeConfigured(
  { components, state, repository }: Configuration,
  directories: readonly string[] = [state, ...repository.storages.map(({ path }) => path)],
): Promise<void> {
  const places = [...components.map(({ dataDirectory }) => dataDirectory), ...repository.storages.map(({ path }) => path)]
  for (const place of places) {
    const account = await ownerOf(place).catch(() => undefined)
    if (account !== undefined) return await becomeAccount(account, directories)
  }
}

/** Whom a data directory belongs to. Throws DATA_DIRECTORY_UNREADABLE. */
export async function ownerOf(dataDirectory: string): Promise<Account> {
  try {
    const { uid, gid } = await stat(dataDirectory)
    return { uid, gid }
  } catch (cause) {
    throw new Failure('DATA_DIRECTORY_UNREADABLE', `cannot look at the data directory "${dataDirectory}"`, {
      hint: 'run it on the host of the database, as root or as the account of the server',
      cause,
    })
  }
}

/** `postgres`, or the number of an account without a name. */
export function nameOf(account: Account): string {
  return accountEntry(account)?.name ?? String(account.uid)
}

async function giveMissing(path: string, account: Account): Promise<void> {
  if (await isThere(path)) return
  const first = (await makeOwnDirectory(path)) ?? path
  for (let at = path; at.length >= first.length; at = dirname(at)) await lchown(at, account.uid, account.gid)
}

function accountEntry({ uid }: Account): { name: string; home: string } | undefined {
  const fields = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find((each) => each[2] === String(uid))
  return fields?.[0] === undefined ? undefined : { name: fields[0], home: fields[5] ?? '/' }
}
