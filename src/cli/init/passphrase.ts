import { randomInt } from 'node:crypto'

/** Crockford's: nothing in it looks like anything else, so that it can be written down and typed. */
const LETTERS = '0123456789abcdefghjkmnpqrstvwxyz'
const GROUPS = 8
const GROUP_LETTERS = 5

/** A new passphrase of 200 random bits: `k7m2p-...`, eight groups. */
export function newPassphrase(): string {
  const group = () => Array.from({ length: GROUP_LETTERS }, () => LETTERS[randomInt(LETTERS.length)]).join('')
  return Array.from({ length: GROUPS }, group).join('-')
}
