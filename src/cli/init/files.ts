import { randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { connectionProblem } from '../../config/configuration.ts'
import { resolveSecret } from '../../config/secret-reference.ts'
import { Failure } from '../../errors.ts'
import { DESCRIPTOR_KEY } from '../../repository/layout.ts'
import { Secret } from '../../secret.ts'
import type { Choices } from './choices.ts'
import { configurationText } from './configuration-text.ts'
import type { InitMode } from './options.ts'
import { newPassphrase } from './passphrase.ts'
import { noteUnfinished } from './unfinished.ts'
import { isThere, makeOwnDirectory, removeStaged, writeOnce } from './write-once.ts'

const PASSWORD_BYTES = 24
const ROLE = 'resus'

/** The connection string that is there, or a new one with a password of its own. Nothing is written. */
export async function chooseConnection(
  choices: Pick<Choices, 'connectionPath' | 'server'>,
): Promise<{ connection: Secret; isNew: boolean }> {
  const path = choices.connectionPath
  if (await isThere(path)) {
    const connection = await resolveSecret({ kind: 'file', path }, 'the connection string')
    const problem = connectionProblem(connection.reveal().toString('utf8'), { passwordAllowed: true })
    if (problem === undefined) return { connection, isNew: false }
    throw new Failure('CONFIG_INVALID', `the connection string in "${path}" is none: ${problem}`, {
      hint: 'write it as "postgres://resus:password@host:port/database", or name another file: --connection-file',
    })
  }
  const { address, port, socketDirectory } = choices.server
  const password = randomBytes(PASSWORD_BYTES).toString('base64url')
  const host = address?.includes(':') === true ? `[${address}]` : (address ?? '')
  const place =
    address === undefined
      ? `/postgres?host=${encodeURIComponent(socketDirectory ?? '')}&port=${port}`
      : `${host}:${port}/postgres`
  return { connection: new Secret(`postgres://${ROLE}:${password}@${place}`), isNew: true }
}

/** Refuses a repository that is there without its passphrase: a new one would not open it. Throws KEY_WRONG. */
export async function assertPassphraseKnown(choices: Choices): Promise<void> {
  const objects = await readdir(choices.storage).catch((): string[] => [])
  if (!objects.includes(DESCRIPTOR_KEY) || (await isThere(choices.passphrasePath))) return
  throw new Failure(
    'KEY_WRONG',
    `there is a repository in "${choices.storage}", and no passphrase in "${choices.passphrasePath}"`,
    {
      hint: 'put its passphrase there, or name where it is: --passphrase-file; or choose another directory: --storage',
    },
  )
}

/**
 * Makes the files that are missing, the configuration last: until it is there, nothing else counts. What is there is used as it is. Killed at any moment and
 * run again, it goes on: the password that a server was given is always the one in the file.
 */
export async function writeFiles(
  choices: Choices,
  options: { connection: Secret; mode: InitMode; onDone: (text: string) => void },
): Promise<void> {
  const { connection, mode, onDone } = options
  const { configPath, passphrasePath, connectionPath, state, storage } = choices
  const files = [passphrasePath, connectionPath, configPath]
  for (const directory of [...files.map((path) => dirname(path)), state, storage]) await makeOwnDirectory(directory)
  for (const directory of new Set(files.map((path) => dirname(path)))) await removeStaged(directory)
  const made = async (path: string, what: string, text: string) => {
    const isMade = await writeOnce(path, text)
    onDone(isMade ? `wrote ${what}: ${path}` : `${what} is there already, and used: ${path}`)
  }
  await made(passphrasePath, 'the passphrase', `${newPassphrase()}\n`)
  await made(connectionPath, 'the connection', `${connection.reveal().toString('utf8')}\n`)
  await noteUnfinished(configPath, mode)
  await made(configPath, 'the configuration', configurationText(choices))
}
