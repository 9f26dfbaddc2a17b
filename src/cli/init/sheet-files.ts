import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Configuration } from '../../config/configuration.ts'
import { resolveSecret } from '../../config/secret-reference.ts'
import { Failure } from '../../errors.ts'
import { beginEvidence } from '../../recovery/evidence/keys.ts'
import type { Repository } from '../../repository/repository.ts'
import type { Context } from '../verb.ts'
import { nameOf, ownerOf } from './account.ts'
import { readSheetFacts, recoverySheet, type SheetComponent } from './recovery-sheet.ts'
import { isThere, makeOwnDirectory, writeOnce } from './write-once.ts'

const SHEET = 'recovery-sheet'
const SHEETS_MAX = 100

export interface WrittenSheet {
  readonly path: string
  /** Without the passphrase, whatever the file has. */
  readonly text: string
  readonly isNew: boolean
}

/** Writes the recovery sheet beside the configuration, mode 0600. One that says the same is left; one that says something else stays, under its name. */
export async function writeSheet(run: {
  context: Context
  configuration: Configuration
  repository: Repository
  withPassphrase: boolean
}): Promise<WrittenSheet> {
  const { context, configuration, repository, withPassphrase } = run
  const { clock, signal } = context
  // From the first day on: a fingerprint that is learnt later may be a forger's.
  const { fingerprint } = await beginEvidence({ repository, system: configuration.system, clock, signal })
  const facts = await readSheetFacts(repository, fingerprint)
  const components = await Promise.all(
    configuration.components.map(async ({ name, dataDirectory }) => sheetComponent(name, dataDirectory)),
  )
  const passphrase = withPassphrase ? await resolveSecret(configuration.repository.key.passphrase, 'the passphrase') : undefined
  const text = recoverySheet({ configuration, facts, components, passphrase: undefined })
  const written = passphrase === undefined ? text : recoverySheet({ configuration, facts, components, passphrase })
  for (let number = 1; number <= SHEETS_MAX; number += 1) {
    const path = join(dirname(configuration.path), `${SHEET}${number === 1 ? '' : `-${number}`}.txt`)
    if (await writeOnce(path, written)) return { path, text, isNew: true }
    if ((await readFile(path, 'utf8').catch(() => undefined)) === written) return { path, text, isNew: false }
  }
  throw new Failure('DIRECTORY_UNWRITABLE', `"${dirname(configuration.path)}" has ${SHEETS_MAX} recovery sheets already`, {
    hint: 'remove those that are old',
  })
}

/** server.yaml for "resus serve", unless there is one: where the API may restore to, and where the store lies. */
export async function writeServerSettings(configuration: Configuration, steps: { done(step: string): void }): Promise<void> {
  const path = join(dirname(configuration.path), 'server.yaml')
  const home = dirname(configuration.state)
  const text = `# Made by "resus init", for "resus serve" (docs/serve.md).
state: ${JSON.stringify(join(home, 'server'))}
restoreRoots: [${JSON.stringify(join(home, 'restores'))}]
`
  if (await isThere(path)) return steps.done(`there already: ${path}`)
  await makeOwnDirectory(dirname(path))
  await writeOnce(path, text)
  steps.done(`wrote the settings of "resus serve": ${path}`)
}

async function sheetComponent(name: string, dataDirectory: string): Promise<SheetComponent> {
  const version = await readFile(join(dataDirectory, 'PG_VERSION'), 'utf8').catch(() => '')
  const account = await ownerOf(dataDirectory).then(nameOf, () => 'postgres')
  const major = Number.parseInt(version, 10)
  return { name, dataDirectory, account, major: Number.isNaN(major) ? undefined : major }
}
