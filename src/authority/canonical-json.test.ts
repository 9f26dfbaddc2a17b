import assert from 'node:assert/strict'
import test from 'node:test'
import { canonicalJson, type Json } from './canonical-json.ts'

test('the example of RFC 8785 has the text that the RFC gives', () => {
  const value = JSON.parse(String.raw`{
    "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
    "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
    "literals": [null, true, false]
  }`) as Json
  assert.equal(
    canonicalJson(value),
    String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
  )
})

test('keys are in the order of their code units, at every depth', () => {
  const value = { '\u20ac': 1, '\r': 2, '\ufb33': 3, '1': 4, '\ud83d\ude00': 5, '\u0080': 6, '\u00f6': 7, '10': 8, '2': 9 }
  assert.equal(
    canonicalJson({ z: [value], a: {} }),
    '{"a":{},"z":[{"\\r":2,"1":4,"10":8,"2":9,"\u0080":6,"\u00f6":7,"\u20ac":1,"\ud83d\ude00":5,"\ufb33":3}]}',
  )
})

test('numbers are as ECMAScript writes them', () => {
  for (const [number, text] of [
    [0, '0'],
    [-0, '0'],
    [Number.MIN_VALUE, '5e-324'],
    [Number.MAX_VALUE, '1.7976931348623157e+308'],
    [9007199254740992, '9007199254740992'],
    [295147905179352830000, '295147905179352830000'],
    [9.999999999999997e22, '9.999999999999997e+22'],
    [1e21, '1e+21'],
    [0.000001, '0.000001'],
    [1e-7, '1e-7'],
    [333333333.3333332, '333333333.3333332'],
  ] as const) {
    assert.equal(canonicalJson(number), text)
  }
})

test('composed and decomposed letters stay apart, and what is read back has the same text', () => {
  assert.notEqual(canonicalJson('\u00f6'), canonicalJson('o\u0308'))
  const text = canonicalJson({ b: 'Ọ̀ṣun \u0000 \u2028', a: [1.5, { y: null, x: '\u007f' }] })
  assert.equal(canonicalJson(JSON.parse(text) as Json), text)
})

test('what JSON cannot say is refused', () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, '\ud800', { '\udc00': 1 }, { a: undefined }, [undefined]]) {
    assert.throws(() => canonicalJson(value as unknown as Json))
  }
})
