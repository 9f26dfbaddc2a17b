import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { open, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure, systemErrorCode } from '../errors.ts'

const TOKEN_BYTES = 32
const TOKEN = /^resus_[\w-]{43}$/

/** The one who may do everything, until there are people: whoever can read a file of mode 0600. */
export class Administrator {
  readonly #digest: Buffer

  constructor(token: string) {
    this.#digest = digestOf(token)
  }

  /** In constant time, whatever is given. */
  holds(token: string): boolean {
    return timingSafeEqual(this.#digest, digestOf(token))
  }
}

/**
 * The administrator token in `<state>/administrator-token`; made when there is none, durable before it is used. Throws SECRET_UNREADABLE for a file that is
 * none, or that others may read.
 */
export async function administratorToken(
  state: string,
): Promise<{ readonly token: string; readonly path: string; readonly isNew: boolean }> {
  const path = join(state, 'administrator-token')
  const found = await readFile(path, 'utf8').catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw unreadable(path, `it cannot be read: ${systemErrorCode(error)}`)
  })
  if (found === undefined) return { token: await makeToken(path), path, isNew: true }
  if (((await stat(path)).mode & 0o077) !== 0) throw unreadable(path, 'other accounts may read it')
  const token = found.trim()
  if (!TOKEN.test(token)) throw unreadable(path, 'it holds no token')
  return { token, path, isNew: false }
}

async function makeToken(path: string): Promise<string> {
  const token = `resus_${randomBytes(TOKEN_BYTES).toString('base64url')}`
  const staged = `${path}.new`
  await rm(staged, { force: true })
  const file = await open(staged, 'wx', 0o600)
  try {
    await file.writeFile(`${token}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(staged, path)
  const directory = await open(dirname(path))
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
  return token
}

function unreadable(path: string, why: string): Failure {
  return new Failure('SECRET_UNREADABLE', `the administrator token in "${path}": ${why}`, {
    hint: 'delete the file: the next start makes another one, and the old token is worth nothing any more',
  })
}

function digestOf(token: string): Buffer {
  return createHash('sha256').update(token).digest()
}
