import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Accounts } from '../../authority/accounts.ts'
import type { Clock } from '../../clock.ts'
import { replaceFile } from '../../protect/postgres/durable-file.ts'
import { putAuthority, readAuthority } from '../../repository/authority-objects.ts'
import type { AskedRepositories } from './asked-repositories.ts'

const FILE = 'rows-are-sealed'
const NAME = 'seals'

/**
 * Seals what a store of an older version has, once. That it was done is known outside the store, by this node and by the repositories: a row without a seal is worth nothing from then on, also where
 * somebody takes all seals away. Undefined while a repository that cannot be asked may know of it.
 */
export async function beginSeals(options: {
  readonly directory: string
  readonly asked: AskedRepositories
  readonly accounts: Pick<Accounts, 'beginSeals'>
  readonly clock: Clock
}): Promise<number | undefined> {
  const { directory, asked, accounts, clock } = options
  const { opened: repositories, away } = asked
  const path = join(directory, FILE)
  if ((await stat(path).catch(() => undefined)) !== undefined) return 0
  const marks = await Promise.all(repositories.map(async (repository) => readAuthority(repository, NAME)))
  const isBegun = marks.some((mark) => mark !== undefined)
  if (!isBegun && (away.length > 0 || repositories.length === 0)) return undefined
  const sealed = isBegun ? 0 : await accounts.beginSeals()
  const document = { format: 1, at: new Date(clock.now()).toISOString() }
  for (const repository of repositories) await putAuthority(repository, NAME, document)
  await replaceFile(path, 'the rows of people are sealed: one without a seal is worth nothing\n')
  return sealed
}
