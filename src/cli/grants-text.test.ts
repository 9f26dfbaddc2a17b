import assert from 'node:assert/strict'
import test from 'node:test'
import { formatGrants, parseGrant, parseGrants } from './grants-text.ts'

test('a grant is a role, for all facilities or for those that it names', () => {
  assert.deepEqual(parseGrant('operator'), { role: 'operator', facilities: null })
  assert.deepEqual(parseGrant('approver:ila,ede'), { role: 'approver', facilities: ['ila', 'ede'] })
  for (const text of ['operator', 'approver:ila,ede']) assert.equal(formatGrants([parseGrant(text)]), text)
})

test('what is no grant is refused: above all, no list of facilities becomes all of them', () => {
  for (const text of ['', 'chief', 'operator:', 'operator:ila,', 'operator:ila:ede', 'operator: ila', 'Operator', 'operator:*']) {
    assert.throws(() => parseGrant(text), { code: 'ARGUMENTS_INVALID' }, text)
  }
  assert.throws(() => parseGrants({ args: [], options: {} }), { code: 'ARGUMENTS_INVALID' })
})
