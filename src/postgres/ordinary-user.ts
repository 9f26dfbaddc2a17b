import { readFileSync } from 'node:fs'

/** An account that PostgreSQL may run as. */
export interface OrdinaryUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

const CANDIDATES = ['postgres', 'nobody'] as const

/**
 * The account that a PostgreSQL server has to run as when we are root (PostgreSQL refuses root): `postgres` where it exists,
 * else `nobody`. Undefined when we are an ordinary user already.
 */
export function ordinaryUser(): OrdinaryUser | undefined {
  if (process.getuid?.() !== 0) return undefined
  const accounts = readFileSync('/etc/passwd', 'utf8').split('\n')
  for (const name of CANDIDATES) {
    const fields = accounts.find((line) => line.startsWith(`${name}:`))?.split(':')
    if (fields !== undefined) return { name, uid: Number(fields[2]), gid: Number(fields[3]) }
  }
  return { name: 'nobody', uid: 65534, gid: 65534 }
}
