import { readFile } from 'node:fs/promises'
import { Failure, systemErrorCode } from '../errors.ts'

/** Certificates that a channel trusts. Throws CONFIG_UNREADABLE. */
export async function readAuthorities(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (cause) {
    throw new Failure('CONFIG_UNREADABLE', `cannot read the certificates in "${path}": ${systemErrorCode(cause) ?? 'unknown'}`, {
      hint: 'may this user read the file "ca" of the channel?',
      cause,
    })
  }
}
