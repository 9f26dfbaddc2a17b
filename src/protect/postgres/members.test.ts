import assert from 'node:assert/strict'
import test from 'node:test'
import { Failure } from '../../errors.ts'
import { Secret } from '../../secret.ts'
import { choosePrimary, descendsFrom, listMembers, type MemberState } from './members.ts'

const SYSTEM = '7300000000000000001'

function member(host: string, kind: 'primary' | 'standby', timeline: number, history = ''): MemberState {
  return { host, connectionString: '', kind, identity: { systemIdentifier: SYSTEM, timeline, position: 5n }, history }
}

const DEAD: MemberState = {
  host: 'dead',
  connectionString: '',
  kind: 'unreachable',
  failure: new Failure('POSTGRES_UNREACHABLE', 'no answer'),
}
const ONE = member('one', 'primary', 1)
const TWO = member('two', 'primary', 2, '1\t0/5000000\tno recovery target specified\n')
const THREE = member(
  'three',
  'primary',
  3,
  '1\t0/5000000\tno recovery target specified\n\n2\t0/6000000\tno recovery target specified\n',
)
const OTHER_TWO = member('other', 'primary', 2, '1\t0/4000000\tno recovery target specified\n')
const nobodyLeft = () => Promise.resolve(false)

test('each host takes the place of the one in the connection, with its port where it has one', () => {
  const connection = new Secret('postgres://resus:a%20b@db0:5432/postgres?sslmode=require&host=/var/run')
  const members = listMembers(connection, ['db1', 'db2:5433', '[::1]:6000'])
  assert.deepEqual(
    members.map(({ connectionString }) => connectionString),
    [
      'postgres://resus:a%20b@db1:5432/postgres?sslmode=require',
      'postgres://resus:a%20b@db2:5433/postgres?sslmode=require',
      'postgres://resus:a%20b@[::1]:6000/postgres?sslmode=require',
    ],
  )
  assert.deepEqual(
    listMembers(new Secret('postgres://u@/db?host=/run/postgresql'), ['db1']).map((each) => each.connectionString),
    ['postgres://u@db1/db'],
  )
  assert.equal(listMembers(connection, [])[0]?.connectionString, connection.reveal().toString())
})

test('a timeline descends from those in its history, as they were', () => {
  const cases = [
    [TWO, ONE, true],
    [THREE, ONE, true],
    [THREE, TWO, true],
    [ONE, TWO, false],
    [TWO, TWO, false],
    // The same number of a timeline, but another one.
    [THREE, OTHER_TWO, false],
    [OTHER_TWO, ONE, true],
  ] as const
  for (const [younger, older, expected] of cases) {
    assert.ok(younger.kind !== 'unreachable' && older.kind !== 'unreachable')
    assert.equal(descendsFrom(younger, older), expected, `${younger.host} from ${older.host}`)
  }
})

test('the primary is the one whose timeline nobody has left; the others are stale', async () => {
  const states = [ONE, DEAD, TWO, member('standby', 'standby', 2, TWO.kind === 'primary' ? TWO.history : '')]
  const { primary, stale } = await choosePrimary(states, nobodyLeft)
  assert.equal(primary.host, 'two')
  assert.deepEqual(
    stale.map(({ host }) => host),
    ['one'],
  )
})

test('without a primary there is none to stream from, and each member is named', async () => {
  const choice = choosePrimary([DEAD, member('standby', 'standby', 1)], nobodyLeft)
  await assert.rejects(choice, {
    code: 'POSTGRES_UNREACHABLE',
    message: /"dead" does not answer.*"standby" is a standby on timeline 1/,
  })
})

test('two primaries of which neither follows the other, and one that the repository has left, are refused', async () => {
  await assert.rejects(choosePrimary([TWO, OTHER_TWO], nobodyLeft), { code: 'PRIMARY_UNCLEAR', message: /"two".*"other"/ })
  await assert.rejects(choosePrimary([ONE, member('clone', 'primary', 1)], nobodyLeft), { code: 'PRIMARY_UNCLEAR' })
  const left = choosePrimary([ONE], (candidate) => Promise.resolve(candidate.identity.timeline === 1))
  await assert.rejects(left, { code: 'PRIMARY_UNCLEAR', message: /"one".*timeline that the cluster has left/ })
})
