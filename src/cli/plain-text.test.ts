import assert from 'node:assert/strict'
import test from 'node:test'
import { plainJson, plainText } from './plain-text.ts'

test('characters that command a terminal, hide or turn the order are shown as what they are', () => {
  assert.equal(plainText('Ọ̀ṣun – “ìyá” 東京 \u{1F3E5}'), 'Ọ̀ṣun – “ìyá” 東京 \u{1F3E5}')
  for (const bad of [
    '\u001b',
    '\u009b',
    '\r',
    '\n',
    '\u0000',
    '\u007f',
    '\u202e',
    '\u2066',
    '\u200b',
    '\ufeff',
    '\u2028',
    '\u00ad',
  ]) {
    assert.equal(plainText(`a${bad}b`), `a\\u{${bad.codePointAt(0)!.toString(16)}}b`)
  }
  assert.equal(plainText('a\ud800b'), 'a\\u{d800}b')
})

test('a document is shown in full, and nothing in it makes a line of its own', () => {
  const text = plainJson({ to: '/restores/a\n  "to": "/elsewhere"', name: 'x\u009b2K\u202e' })
  assert.deepEqual(text.split('\n'), [
    '{',
    '  "to": "/restores/a\\n  \\"to\\": \\"/elsewhere\\"",',
    '  "name": "x\\u{9b}2K\\u{202e}"',
    '}',
  ])
})
