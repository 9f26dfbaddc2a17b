import assert from 'node:assert/strict'
import test from 'node:test'
import { systemClock } from '../../../clock.ts'
import { CheckList } from '../check-list.ts'
import { commandCheck } from './command-check.ts'
import { commandCheckSchema } from './checks-schema.ts'
import type { CheckedCopy } from './content-check.ts'

// Commands are not told of a server that matters here: they only print.

const COPY = {
  server: { toolEnvironment: async () => ({}) },
  askedMs: null,
  signal: new AbortController().signal,
} as unknown as CheckedCopy

async function run(script: string, more: { trusted?: boolean; minutes?: number } = {}) {
  const checks = new CheckList(systemClock, COPY.signal)
  const settings = commandCheckSchema.parse({ name: 'c', run: ['/bin/sh', '-c', script], ...more })
  const check = commandCheck(settings, { database: 'his', digest: (text) => `digest of ${text.length}` })
  await checks.run(check, async () => check.look(COPY))
  const [whole, ...parts] = checks.checks
  return { verdict: whole!.verdict, found: whole!.found, parts, own: checks.isContentVerified, details: checks.details }
}

const print = (document: unknown) => `printf '%s' '${JSON.stringify(document)}'`

test('what is printed as a document, and is not understood, fails whatever the exit status', async () => {
  const many = `node -e 'console.log(JSON.stringify({checks:Array(1001).fill({name:"a",verdict:"passed"})}))'`
  const scripts = {
    'another word for it': print({ checks: [{ name: 'a', verdict: 'FAILED' }] }),
    'no name': print({ checks: [{ verdict: 'failed' }] }),
    'no checks': print({ ok: false }),
    'a list': print([{ name: 'a', verdict: 'failed' }]),
    'cut off': `printf '{"checks":[{"name":"a"'`,
    'behind a mark': `printf '\\357\\273\\277 {"checks":'`,
    'too many': many,
    'too long': `printf '{"checks":[]}'; head -c 5000000 /dev/zero | tr '\\0' ' '`,
    'too long, and no document': `head -c 5000000 /dev/zero | tr '\\0' a`,
  }
  for (const [name, script] of Object.entries(scripts)) {
    const { verdict, own } = await run(script)
    assert.deepEqual([verdict, own], ['failed', false], name)
  }
})

test('long texts are cut, and refuse nothing', async () => {
  const script = `node -e 'console.log(JSON.stringify({checks:[{name:"a".repeat(500),verdict:"failed",found:"x".repeat(5000)}]}))'`
  const { verdict, parts } = await run(script, { trusted: true })
  assert.deepEqual([verdict, parts[0]?.verdict, parts[0]?.name], ['failed', 'failed', 'command: c: check 1'])
  assert.equal(parts[0]?.found.length, 2001)
})

test('an exit status alone is verified, and is nothing of the hospital that was seen', async () => {
  for (const script of ['true', 'echo all is well']) {
    const { verdict, own } = await run(script)
    assert.deepEqual([verdict, own], ['verified', false])
  }
  const { verdict, own } = await run(print({ checks: [{ name: 'a', verdict: 'passed' }] }))
  assert.deepEqual([verdict, own], ['verified', true])
  assert.equal((await run('exit 3')).verdict, 'failed')
})

test('names and words of a command are in a record only where the configuration trusts it', async () => {
  const script = print({ checks: [{ name: 'Ada Obi, 1980', verdict: 'failed', expected: 'Ada', found: 'Ada Obi is gone' }] })
  const { parts, details } = await run(script)
  assert.deepEqual(parts[0], {
    name: 'command: c: check 1',
    verdict: 'failed',
    expected: 'hmac-sha256:digest of 3',
    found: 'hmac-sha256:digest of 15',
    seconds: 0,
  })
  assert.match(JSON.stringify(details), /Ada Obi is gone/)
  const counts = print({ checks: [{ name: 'counts', verdict: 'passed', expected: 'all', found: '12 of 12' }] })
  const trusted = await run(counts, { trusted: true })
  assert.deepEqual([trusted.parts[0]?.name, trusted.parts[0]?.found], ['command: c: counts', '12 of 12'])
})

test('a process that went away and holds the pipes is not waited for', async () => {
  const script = `setsid sh -c 'echo $$ >&2; exec sleep 300' & sleep 0.3; ${print({ checks: [{ name: 'a', verdict: 'passed' }] })}; exit 1`
  const { verdict, parts, details } = await run(script)
  assert.deepEqual([verdict, parts.length], ['failed', 1])
  const pid = details.map(({ findings }) => Number(findings)).find((each) => each > 1)
  assert.ok(pid !== undefined)
  process.kill(pid, 'SIGKILL')
})
