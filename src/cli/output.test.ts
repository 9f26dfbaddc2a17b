import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatBytes, formatDuration, formatFields, formatJson, formatTable } from './output.ts'
import { ProgressLine } from './progress.ts'

test('bytes and durations have few digits', () => {
  const bytes = [0, 999, 1000, 1_440_000, 99_960_000, 999_600_000, 3.2e12].map(formatBytes)
  assert.deepEqual(bytes, ['0 B', '999 B', '1.0 kB', '1.4 MB', '100 MB', '1.0 GB', '3.2 TB'])
  const durations = [0, 420, 9960, 59_400, 200_000, 7_500_000, 273_600_000].map(formatDuration)
  assert.deepEqual(durations, ['0.0 s', '0.4 s', '10 s', '59 s', '3 min 20 s', '2 h 5 min', '3 d 4 h'])
})

test('tables and fields stand under each other', () => {
  assert.equal(
    formatTable(
      ['A', 'SIZE'],
      [
        ['long name', '1'],
        ['b', '12345'],
      ],
      ['SIZE'],
    ),
    'A           SIZE\nlong name      1\nb          12345',
  )
  assert.equal(
    formatFields([
      ['a', '1'],
      ['long', '2'],
    ]),
    'a:    1\nlong: 2',
  )
})

test('JSON has 64-bit numbers as text', () => {
  assert.equal(formatJson({ lsn: 2n ** 63n }), '{\n  "lsn": "9223372036854775808"\n}')
})

test('progress is one line that is redrawn on a terminal, and a line every five seconds elsewhere', () => {
  for (const isTTY of [true, false]) {
    const written: string[] = []
    let nowMs = 0
    const clock = { now: () => nowMs, sleep: async () => undefined }
    const line = new ProgressLine({ isTTY, columns: 120, write: (text) => written.push(text) }, clock)
    for (nowMs = 0; nowMs <= 12_000; nowMs += 100) {
      line.report({ phase: 'reading', bytesDone: nowMs * 1000, bytesTotal: 20_000_000 })
    }
    line.print('a notice')
    const text = written.join('').replaceAll('\r\u001B[K', '<clear>')
    if (isTTY) {
      assert.equal(written.length, 62)
      assert.equal(text.split('\n').length, 2)
      assert.match(text, /<clear>reading: 12\.0 MB of 20\.0 MB, 60 %, 1\.0 MB\/s, 8\.0 s left<clear>a notice\n$/)
    } else {
      assert.equal(
        text,
        'reading: 5.0 MB of 20.0 MB, 25 %, 1.0 MB/s, 15 s left\nreading: 10.0 MB of 20.0 MB, 50 %, 1.0 MB/s, 10 s left\na notice\n',
      )
    }
  }
})
