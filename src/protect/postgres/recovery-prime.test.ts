import assert from 'node:assert/strict'
import test from 'node:test'
import { explainRefusal } from './recovery-prime.ts'

const owner = { uid: 12345 }
const report = (code: string) => JSON.stringify({ error: { code, message: 'object "wal/x" says why', hint: null } })

for (const code of ['OBJECT_DAMAGED', 'OBJECT_MISSING', 'WAL_GAP', 'WAL_INVALID']) {
  test(`a trial that ends with ${code} says that the repository is at fault`, () => {
    const failure = explainRefusal({ status: 255, output: report(code), errors: 'text' }, owner)
    assert.equal(failure.code, code)
    assert.match(failure.message, /object "wal\/x" says why/)
  })
}

for (const code of ['SECRET_UNREADABLE', 'CONFIG_UNREADABLE', 'KEY_WRONG', 'STORAGE_UNREACHABLE', 'BUG']) {
  test(`a trial that ends with ${code} says that the command does not work for this user, and why`, () => {
    const failure = explainRefusal({ status: 255, output: report(code), errors: 'text' }, owner)
    assert.equal(failure.code, 'RESTORE_COMMAND_FAILED')
    assert.match(failure.message, new RegExp(`says why \\(${code}\\)`))
  })
}

test('a trial that could not even start Resus says what the shell said', () => {
  const failure = explainRefusal({ status: 255, output: '', errors: 'sh: 1: node: Permission denied\n' }, owner)
  assert.equal(failure.code, 'RESTORE_COMMAND_FAILED')
  assert.match(failure.message, /node: Permission denied$/)
  assert.match(explainRefusal({ status: null, output: '{', errors: '' }, owner).message, /status null$/)
})
