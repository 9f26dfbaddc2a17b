import assert from 'node:assert/strict'
import test from 'node:test'
import { ROLES, type Grant, type Principal, type Role } from './principal.ts'
import { ACTIONS, mayAsk, reaches, type Action } from './roles.ts'

function personWith(...grants: readonly Grant[]): Principal {
  return { kind: 'person', id: 'p', person: 'p', name: 'somebody', grants, factor: 'totp' }
}

const everywhere = (role: Role) => personWith({ role, facilities: null })
const inIla = (role: Role) => personWith({ role, facilities: ['ila'] })
const actions = Object.keys(ACTIONS) as Action[]

test('who has no grant may look after their own factors, and nothing else', () => {
  for (const action of actions) assert.equal(mayAsk(personWith(), action), action === 'self', action)
})

test('nobody may both ask for a restore and decide on one with one role, and an auditor changes nothing', () => {
  for (const role of ROLES) {
    const may = (action: Action) => mayAsk(everywhere(role), action)
    assert(!(may('restore.ask') && may('approval.decide')), role)
    assert(!(may('people.ask') && may('approval.decide')), role)
    assert(!(may('expire.ask') && may('approval.decide')), role)
  }
  const changing = actions.filter(
    (action) => !/\.read$|^evidence\.(verify|details)$|^self$|^emergency\.review$|^audit\.acknowledge$/.test(action),
  )
  for (const action of changing) assert(!mayAsk(everywhere('auditor'), action), action)
})

test('a grant for a facility reads what holds it, and works on what holds nothing else', () => {
  const operator = inIla('operator')
  assert(reaches(operator, 'status.read', ['ila', 'ede']))
  assert(reaches(operator, 'backup.start', ['ila']))
  assert(!reaches(operator, 'backup.start', ['ila', 'ede']))
  assert(!reaches(operator, 'status.read', ['ede']))
  assert(!reaches(operator, 'status.read', []), 'what belongs to no facility belongs to the whole')
  assert(!reaches(operator, 'backup.start', []))
  for (const role of ROLES)
    for (const action of actions) {
      if (ACTIONS[action].reach === 'all') assert(!mayAsk(inIla(role), action) && !reaches(inIla(role), action, ['ila']), action)
    }
})

test('several grants add up by facility, each with its own role alone', () => {
  const both = personWith({ role: 'operator', facilities: ['ila'] }, { role: 'operator', facilities: ['ede'] })
  assert(reaches(both, 'restore.ask', ['ila', 'ede']))
  const mixed = personWith({ role: 'viewer', facilities: null }, { role: 'operator', facilities: ['ila'] })
  assert(reaches(mixed, 'status.read', []))
  assert(!reaches(mixed, 'restore.ask', ['ila', 'ede']))
})
