import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Secret } from '../secret.ts'
import { scramVerifier } from './scram.ts'

test('a verifier is what RFC 5803 says of password and salt', async () => {
  // Password, salt and iterations of the example in RFC 7677. That a server takes it, test/integration/init.test.ts proves.
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64')
  const expected =
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU='
  assert.equal(await scramVerifier(new Secret('pencil'), salt), expected)
  assert.notEqual(await scramVerifier(new Secret('pencil')), await scramVerifier(new Secret('pencil')))
})

test('a password that would need SASLprep is refused, and spaces are not', async () => {
  for (const password of ['pässword', 'tab\there', '']) {
    await assert.rejects(scramVerifier(new Secret(password)), { code: 'ARGUMENTS_INVALID' })
  }
  assert.match(await scramVerifier(new Secret('of three words')), /^SCRAM-SHA-256/)
})
