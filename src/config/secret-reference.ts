import { readFile, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { z } from 'zod'
import { Failure, systemErrorCode } from '../errors.ts'
import { Secret } from '../secret.ts'

/** Where a secret is. The configuration holds references only, so that it can be shown, copied and kept under version control. */
export type SecretReference =
  { readonly kind: 'file'; readonly path: string } | { readonly kind: 'env'; readonly variable: string }

const REFERENCE = /^(?:file:(?<path>.+)|env:(?<variable>[A-Za-z_][A-Za-z0-9_]*))$/
const SECRET_BYTES_MAX = 64 * 1024
const OTHERS_MAY_READ = 0o004

export const secretReferenceSchema = z
  .string()
  .regex(REFERENCE, 'a reference, "file:/path" or "env:NAME", never the secret itself')

/** Reads the text of a reference; a relative path is relative to `directory`. Undefined when it is no reference. */
export function parseSecretReference(text: string, directory: string): SecretReference | undefined {
  const { path, variable } = REFERENCE.exec(text)?.groups ?? {}
  if (path !== undefined) return { kind: 'file', path: resolve(directory, path) }
  return variable === undefined ? undefined : { kind: 'env', variable }
}

export function formatSecretReference(reference: SecretReference): string {
  return reference.kind === 'file' ? `file:${reference.path}` : `env:${reference.variable}`
}

/**
 * Fetches a secret; `what` names it in messages ("the passphrase"). One newline at the end of a file is not part of it. `onWarning`
 * is told when everybody on this host may read the file. Throws SECRET_UNREADABLE, also for an empty one.
 */
export async function resolveSecret(
  reference: SecretReference,
  what: string,
  onWarning: (text: string) => void = () => undefined,
): Promise<Secret> {
  const bytes = reference.kind === 'file' ? await readSecretFile(reference.path, what, onWarning) : readVariable(reference, what)
  if (bytes.length > 0) return new Secret(bytes)
  throw new Failure('SECRET_UNREADABLE', `cannot use ${what} from "${formatSecretReference(reference)}": it is empty`, {
    hint: 'put the secret there, without quotes',
  })
}

async function readSecretFile(path: string, what: string, onWarning: (text: string) => void): Promise<Buffer> {
  try {
    const { size, mode } = await stat(path)
    if (size > SECRET_BYTES_MAX) {
      throw new Failure('SECRET_UNREADABLE', `cannot use ${what} from "${path}": ${size} bytes are too many for a secret`, {
        hint: 'is this the right file?',
      })
    }
    if ((mode & OTHERS_MAY_READ) !== 0) onWarning(`everybody on this host may read ${what} in "${path}": run "chmod o= ${path}"`)
    const bytes = await readFile(path)
    const end = bytes.at(-1) === 0x0a ? (bytes.at(-2) === 0x0d ? -2 : -1) : bytes.length
    return bytes.subarray(0, end)
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (cause instanceof Failure || code === undefined) throw cause
    throw new Failure('SECRET_UNREADABLE', `cannot read ${what} from "${path}": ${code}`, {
      hint:
        code === 'ENOENT' ? 'make the file, or correct the reference' : 'may this user read the file and pass its directories?',
      cause,
    })
  }
}

function readVariable(reference: { variable: string }, what: string): Buffer {
  const value = process.env[reference.variable]
  if (value !== undefined) return Buffer.from(value)
  throw new Failure('SECRET_UNREADABLE', `cannot read ${what}: the environment has no variable "${reference.variable}"`, {
    hint: 'set it for this process, or correct the reference',
  })
}
