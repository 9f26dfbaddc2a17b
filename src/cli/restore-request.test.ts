import assert from 'node:assert/strict'
import test from 'node:test'
import { restoreRequest } from './restore-request.ts'

const request = (options: Record<string, unknown>) => restoreRequest({ args: [], options })

test('without a target it is the latest moment, or the end of the backup that is named', () => {
  assert.deepEqual(request({}), { target: { kind: 'latest' }, tablespaceMappings: [], delta: false, preview: false })
  assert.deepEqual(request({ backup: 'b' }).target, { kind: 'backup', backup: 'b' })
  const both = request({ backup: 'b', targetName: 'before upgrade' })
  assert.deepEqual([both.target, both.from], [{ kind: 'name', name: 'before upgrade' }, 'b'])
  assert.deepEqual([request({ backup: 'b', latest: true }).from, request({ backup: 'b' }).from], ['b', undefined])
})

test('targets, timeline, action and tablespaces are read', () => {
  assert.deepEqual(request({ targetXid: '75432', exclusive: true }).target, { kind: 'xid', xid: 75432, exclusive: true })
  assert.deepEqual(request({ targetXid: String(2n ** 32n * 5n + 9n) }).target, { kind: 'xid', xid: 9 })
  assert.deepEqual(request({ targetLsn: '16/B374D848' }).target, { kind: 'lsn', lsn: 0x16b374d848n })
  const more = request({ targetTimeline: '3', action: 'pause', tablespaceMap: ['1=/a', '2=/b'], preview: true })
  assert.deepEqual(more, {
    target: { kind: 'latest' },
    timeline: 3,
    action: 'pause',
    tablespaceMappings: [
      { old: '1', new: '/a' },
      { old: '2', new: '/b' },
    ],
    delta: false,
    preview: true,
  })
})

test('what contradicts itself, or is none of what it should be, is refused', () => {
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ targetXid: '5', targetName: 'x' }, /several were given/],
    [{ latest: true, targetLsn: '0/1' }, /several were given/],
    [{ exclusive: true }, /--exclusive says nothing/],
    [{ exclusive: true, targetName: 'x' }, /--exclusive says nothing/],
    [{ backup: 'b', targetTimeline: '2' }, /--target-timeline says nothing/],
    [{ targetTimeline: 'latest' }, /"latest", wanted a number/],
    [{ targetTimeline: '0' }, /wanted a number/],
    [{ targetTimeline: '4294967296' }, /wanted a number/],
    [{ action: 'stop' }, /wanted one of promote, pause, shutdown/],
    [{ targetXid: '2' }, /wanted the id of a transaction/],
    [{ targetXid: '0x10' }, /wanted the id of a transaction/],
    [{ targetName: '' }, /has 0 bytes/],
    [{ targetName: 'ä'.repeat(32) }, /has 64 bytes/],
    [{ tablespaceMap: ['nothing'] }, /wanted OLD=NEW/],
  ]
  for (const [options, message] of refused) {
    assert.throws(() => request(options), { code: 'ARGUMENTS_INVALID', message }, JSON.stringify(options))
  }
})
