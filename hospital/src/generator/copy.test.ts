import assert from 'node:assert/strict'
import test from 'node:test'
import { skip, testHospital } from '../../test/services/hospital-database.ts'
import { copyIn, copyRow } from './copy.ts'
import { jsonbText } from './jsonb-text.ts'
import { Random } from './random.ts'

const NASTY = [
  '',
  ' ',
  '\\',
  '\\N',
  '\\.',
  '\n',
  '\r\n',
  '\t',
  'a\\tb',
  "'; drop table x; --",
  '"',
  'Ṣẹ́gun Ọlátúndé',
  '😀',
  '\u2028',
  '\u0001\u001f\u007f',
  '\\u0041',
  '{}',
]

test('COPY stores every text as it was, however it looks', { skip }, async (t) => {
  const { admin } = await testHospital(t, [])
  await admin.query('create temp table nasty (number integer, value text, document jsonb, nothing text)')
  const rows = NASTY.map((value, number) => copyRow([number, value, jsonbText({ value, [`k${number}`]: [value] }), null]))
  await copyIn(admin, 'copy nasty from stdin', [Buffer.from(rows.join(''))])
  const { rows: found } = await admin.query('select value, document from nasty where nothing is null order by number')
  assert.deepEqual(
    found,
    NASTY.map((value, number) => ({ value, document: { value, [`k${number}`]: [value] } })),
  )
})

test('JSON has the text that jsonb gives it', { skip }, async (t) => {
  const { admin } = await testHospital(t, [])
  const random = new Random(4)
  const scalar = (): unknown => random.pick([...NASTY, 0, 1, -1, 0.1, 13.4, 100, 1_234_567.25, true, false, null, [], {}])
  const value = (depth: number): unknown => {
    if (depth === 0) return scalar()
    if (random.chance(0.3)) return Array.from({ length: random.whole(0, 3) }, () => value(depth - 1))
    return Object.fromEntries(
      Array.from({ length: random.whole(0, 6) }, () => [
        random.pick(['a', 'b', 'aa', 'B', 'ab', 'status', 'id', '_x', 'a-b']),
        value(depth - 1),
      ]),
    )
  }
  for (let round = 0; round < 200; round += 1) {
    const text = jsonbText(value(3))
    const { rows } = await admin.query<{ text: string }>('select $1::jsonb::text as text', [text])
    assert.equal(rows[0]?.text, text)
  }
  for (const wrong of [1e21, Number.NaN, Infinity, 1e-7, { 'a"': 1 }, () => 1]) assert.throws(() => jsonbText(wrong))
})

test(
  'a COPY that the server refuses, or whose source fails, fails with the cause and leaves the connection usable',
  { skip },
  async (t) => {
    const { admin } = await testHospital(t, [])
    await admin.query('create temp table numbers (number integer primary key)')
    await assert.rejects(copyIn(admin, 'copy numbers from stdin', [Buffer.from('1\nnone\n')]), { code: '22P02' })
    await assert.rejects(copyIn(admin, 'copy nowhere from stdin', []), { code: '42P01' })
    const source = function* (): Generator<Buffer> {
      yield Buffer.from('2\n')
      throw new Error('the source has failed')
    }
    await assert.rejects(copyIn(admin, 'copy numbers from stdin', source()), { message: 'the source has failed' })
    assert.throws(() => copyRow(['\0']))
    await copyIn(admin, 'copy numbers from stdin', [Buffer.from('3\n')])
    assert.deepEqual((await admin.query('select number from numbers')).rows, [{ number: 3 }])
  },
)
