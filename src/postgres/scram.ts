import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { Failure } from '../errors.ts'
import type { Secret } from '../secret.ts'

const derive = promisify(pbkdf2)

/** PostgreSQL's own (scram_iterations). */
const ITERATIONS = 4096
const SALT_BYTES = 16
const KEY_BYTES = 32
/** SASLprep leaves these as they are; a password of others would have to be normalized first. */
const PLAIN = /^[\x20-\x7e]+$/

/**
 * What PostgreSQL keeps of a password (RFC 5803): `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. CREATE ROLE takes it in place of the
 * password, which so is in no statement and no log of the server. Throws ARGUMENTS_INVALID for a password of other than printable ASCII.
 */
export async function scramVerifier(password: Secret, salt = randomBytes(SALT_BYTES)): Promise<string> {
  assertPlainPassword(password)
  const salted = await derive(password.reveal(), salt, ITERATIONS, KEY_BYTES, 'sha256')
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest()
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString('base64')}$${storedKey}:${hmac('Server Key').toString('base64')}`
}

/** Throws ARGUMENTS_INVALID for a password that `scramVerifier` does not take. */
export function assertPlainPassword(password: Secret): void {
  if (PLAIN.test(password.reveal().toString('latin1'))) return
  throw new Failure(
    'ARGUMENTS_INVALID',
    'the password has other characters than printable ASCII, and Resus does not set such a one',
    {
      hint: 'choose another password for the connection string; or give it to the role yourself: "\\password" in psql',
    },
  )
}
