import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { Failure } from '../../errors.ts'
import { replaceFile } from '../../protect/postgres/durable-file.ts'
import type { Repository } from '../../repository/repository.ts'

/** The systems whose repository this node has seen: where one of them has none any more, its storage is away. */
const FILE = 'repositories-seen'
const schema = z.array(z.string())

/** The repositories of all systems, as far as they answer. */
export interface AskedRepositories {
  readonly opened: readonly Repository[]
  /** Systems whose repository cannot be asked, and may know more. One that is to be made yet knows nothing. */
  readonly away: readonly string[]
}

/** Opens all of them. A storage that is not mounted looks like one that is to be made yet: what was seen once on this node was made. */
export async function askRepositories(
  directory: string,
  systems: readonly string[],
  repositoryOf: (system: string) => Promise<Repository>,
): Promise<AskedRepositories> {
  const path = join(directory, FILE)
  const seen = await readSeen(path)
  const outcomes = await Promise.allSettled(systems.map(repositoryOf))
  const opened = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
  const away = systems.filter((system, at) => {
    const outcome = outcomes[at]!
    return outcome.status === 'rejected' && (seen.has(system) || !isMissing(outcome.reason))
  })
  const all = new Set([...seen, ...opened.map(({ system }) => system)])
  // A state directory that is full now is written to the next time.
  if (all.size > seen.size) await replaceFile(path, `${JSON.stringify([...all])}\n`).catch(() => undefined)
  return { opened, away }
}

async function readSeen(path: string): Promise<ReadonlySet<string>> {
  const text = await readFile(path, 'utf8').catch(() => '[]')
  try {
    return new Set(schema.parse(JSON.parse(text)))
  } catch {
    return new Set()
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Failure && error.code === 'REPOSITORY_MISSING'
}
