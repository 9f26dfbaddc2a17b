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
 * The key under which second factors are sealed in the store: the same on all nodes, because the one that a repository has counts, whatever a node has kept. Also in a file of this node, so that
 * people log on while the storage is away. Undefined where nobody can say what it is. One is made only where a repository takes it.
 */
export async function sealingKey(
  state: string,
  repositories: readonly Repository[],
  { mayMake }: { readonly mayMake: boolean },
): Promise<Secret | undefined> {
  const kept = await readKept(state)
  const found = firstOf(repositories).catch((error: unknown) => {
    // Who has it goes on; who has not makes no other where there may be one.
    if (kept === undefined) throw error
    return undefined
  })
  let agreed = (await found) ?? kept
  if (agreed === undefined && mayMake) {
    // Of two nodes that begin at the same time one is first.
    await putAuthority(repositories[0]!, 'key', { format: 1, key: randomBytes(32).toString('base64') })
    agreed = await firstOf(repositories)
  }
  if (agreed === undefined) return undefined
  if (agreed !== kept) await replaceFile(join(state, FILE), agreed)
  return new Secret(Buffer.from(agreed, 'base64'))
}

/** Puts it where there is none. False where there is another. */
export async function putKey(repository: Repository, key: Secret): Promise<boolean> {
  const text = key.reveal().toString('base64')
  if (await putAuthority(repository, 'key', { format: 1, key: text })) return true
  return (await firstOf([repository])) === text
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
