import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { systemErrorCode } from '../../errors.ts'
import { replaceFile } from '../../protect/postgres/durable-file.ts'
import { putAuthority, readAuthority } from '../../repository/authority-objects.ts'
import type { Repository } from '../../repository/repository.ts'
import { Secret } from '../../secret.ts'

const FILE = 'authority-key'
const KEY = /^[A-Za-z0-9+/]{43}=$/
const schema = z.object({ format: z.literal(1), key: z.string().regex(KEY) })

/**
 * The key under which second factors are sealed in the store: the same on all nodes, because the first that was put into a repository counts. Also in a file of this node, so that people log
 * on while the storage is away. Undefined where nobody can say what it is.
 */
export async function sealingKey(
  state: string,
  repositories: readonly Repository[],
  { mayMake }: { readonly mayMake: boolean },
): Promise<Secret | undefined> {
  const kept = await readKept(state)
  const key = kept ?? (await firstOf(repositories)) ?? (mayMake ? randomBytes(32).toString('base64') : undefined)
  if (key === undefined) return undefined
  let agreed = key
  for (const repository of repositories) {
    const isFirst = await putAuthority(repository, 'key', { format: 1, key: agreed })
    // Two nodes that begin at the same time: the one that was first in the first repository is right.
    if (!isFirst && kept === undefined) agreed = schema.parse(await readAuthority(repository, 'key')).key
  }
  if (agreed !== kept) await replaceFile(join(state, FILE), agreed)
  return new Secret(Buffer.from(agreed, 'base64'))
}

async function firstOf(repositories: readonly Repository[]): Promise<string | undefined> {
  for (const repository of repositories) {
    const found = schema.safeParse(await readAuthority(repository, 'key'))
    if (found.success) return found.data.key
  }
  return undefined
}

async function readKept(state: string): Promise<string | undefined> {
  try {
    const text = (await readFile(join(state, FILE), 'utf8')).trim()
    return KEY.test(text) ? text : undefined
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
