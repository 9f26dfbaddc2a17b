import assert from 'node:assert/strict'
import test from 'node:test'
import { COMMON_PASSWORDS } from './common-passwords.ts'
import { PasswordHashes, requireGoodPassword } from './password.ts'

test('a password is known by its hash, also as another keyboard makes it; another one is not', async () => {
  const hashes = new PasswordHashes()
  const phc = await hashes.hash('nine r\u00e9sum\u00e9s at noon')
  assert.match(phc, /^\$argon2id\$v=19\$m=65536,t=3,p=1\$[\w+/]{22}\$[\w+/]{43}$/)
  assert.equal(await hashes.verify('nine re\u0301sume\u0301s at noon', phc), true)
  assert.equal(await hashes.verify('nine resumes at noon', phc), false)
  assert.notEqual(await hashes.hash('nine r\u00e9sum\u00e9s at noon'), phc)
})

test('where there is no hash, or one that asks for more work than ours, nothing is right', async () => {
  const hashes = new PasswordHashes()
  const costly = '$argon2id$v=19$m=999999,t=99,p=1$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHNhbHQ'
  for (const phc of [null, undefined, '', 'plain', costly]) assert.equal(await hashes.verify('', phc), false)
})

test('two are hashed at once and twenty wait; whoever comes then is told to come again, and those who waited are answered', async () => {
  const hashes = new PasswordHashes()
  const asked = Array.from({ length: 25 }, async () => hashes.verify('wrong', null))
  const outcomes = await Promise.allSettled(asked)
  const refused = outcomes.filter((each) => each.status === 'rejected')
  assert.deepEqual(
    refused.map(({ reason }) => (reason as { code: string }).code),
    ['BUSY', 'BUSY', 'BUSY'],
  )
  assert.equal(await hashes.verify('wrong', null), false)
})

test('passwords that are short, long, the name, a repetition or tried first are refused without being repeated', () => {
  const weak = ['short', 'x'.repeat(201), 'ada.lovelace', 'ada.lovelace-1', 'abababababababab', 'Password 1234', 'Administrator']
  for (const password of weak) {
    assert.throws(
      () => requireGoodPassword(password, 'ada.lovelace'),
      (error) => {
        assert.equal((error as { code: string }).code, 'PASSWORD_WEAK')
        assert(!String(error).includes(password))
        return true
      },
    )
  }
  requireGoodPassword('seven storks over the lagoon', 'ada')
  requireGoodPassword(
    '\u{1F600}\u{1F601}\u{1F602}\u{1F603}\u{1F604}\u{1F605}\u{1F606}\u{1F607}\u{1F608}\u{1F609}\u{1F60A}\u{1F60B}',
    'ada',
  )
  for (const each of COMMON_PASSWORDS) assert.throws(() => requireGoodPassword(each, 'ada'), { code: 'PASSWORD_WEAK' }, each)
})
