import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { assert } from '../assert.ts'
import type { Secret } from '../secret.ts'

const derive = promisify(pbkdf2)

/** PostgreSQL's own (scram_iterations). */
const ITERATIONS = 4096
const SALT_BYTES = 16
const KEY_BYTES = 32
/** SASLprep leaves these as they are; a password of others would have to be normalized first. */
const PLAIN = /^[\x21-\x7e]+$/

/**
 * What PostgreSQL keeps of a password (RFC 5803): `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. CREATE ROLE takes it in place of the
 * password, which so is in no statement and no log of the server. The password has to be of printable ASCII.
 */
export async function scramVerifier(password: Secret, salt = randomBytes(SALT_BYTES)): Promise<string> {
  assert(PLAIN.test(password.reveal().toString('latin1')), 'a password of other than printable ASCII needs SASLprep')
  const salted = await derive(password.reveal(), salt, ITERATIONS, KEY_BYTES, 'sha256')
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest()
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString('base64')}$${storedKey}:${hmac('Server Key').toString('base64')}`
}
