import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { FreshServer } from '../services/set-up.ts'

const RUNS_MAX = 40
/** What is new in a run; what was there already ends with another word. */
const NEWS = /^\[\d+\] ((?:wrote|made|took|backup|checked).*)|^(no receiver is running|.*: role "resus")/

for (const major of [15, 18]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: killed after each step and run again, init goes on to a proven backup`, { skip }, async (t) => {
    const server = await FreshServer.start(t, major)
    const seen = new Set<string>()
    const kills: string[] = []
    let passphrase: string | undefined
    for (let runs = 0; ; runs += 1) {
      assert(runs < RUNS_MAX, kills.join('\n'))
      const { ended } = server.start(['init', '--yes', '--json', ...server.flags], (line, child) => {
        const [, step, other] = NEWS.exec(line) ?? []
        const news = (step ?? other)?.replaceAll(/[\dTZ:.-]+/g, '#')
        if (news === undefined || seen.has(news) || child.killed) return
        seen.add(news)
        kills.push(line)
        child.kill('SIGKILL')
      })
      const outcome = await ended
      const place = join(dirname(server.config), 'passphrase')
      const now = await readFile(place, 'utf8').catch(() => undefined)
      if (passphrase !== undefined) assert.equal(now, passphrase, 'another passphrase after a kill')
      passphrase = now
      if (outcome.status === null) continue
      assert.equal(outcome.status, 0, outcome.stderr)
      const { proofs } = JSON.parse(outcome.stdout) as { proofs: { verdict: string }[] }
      assert.equal(proofs[0]?.verdict, 'verified')
      break
    }
    assert(kills.length >= 12, kills.join('\n'))
    const left = (await readdir(dirname(server.config))).toSorted()
    assert.deepEqual(left, ['connection', 'passphrase', 'recovery-sheet.txt', 'resus.yaml', 'server.yaml', 'state'])
    const [counts] = await server.query<{ slots: number; beats: number }>(
      'select (select count(*)::int from pg_replication_slots) as slots, (select count(*)::int from resus.heartbeat) as beats',
    )
    assert.deepEqual(counts, { slots: 1, beats: 1 })
    const valid = await server.run('init', '--validate-only')
    assert.equal(valid.status, 0, valid.stdout)
  })
}

test(
  'a bare init goes on from a set-up that was killed, and only makes the repository when none was',
  { skip: await skipUnlessInstalled(15) },
  async (t) => {
    const server = await FreshServer.start(t, 15)
    const { ended } = server.start(['init', '--yes', ...server.flags], (line, child) => {
      if (line.includes('wrote the configuration')) child.kill('SIGKILL')
    })
    assert.equal((await ended).status, null)
    const asked = await server.run('init', '--json')
    assert.equal(asked.status, 2)
    assert.match(asked.stdout, /Run this SQL now\?.*no terminal/)
    const done = await server.run('init', '--backup-only', '--yes')
    assert.equal(done.status, 0, done.stderr)
    const bare = await server.run('init', '--json')
    assert.equal((JSON.parse(bare.stdout) as { created: boolean }).created, false)
  },
)

test('of two set-ups at once none breaks the other', { skip: await skipUnlessInstalled(15) }, async (t) => {
  const server = await FreshServer.start(t, 15)
  const args = ['init', '--yes', '--backup-only', ...server.flags]
  const outcomes = await Promise.all([server.run(...args), server.run(...args)])
  for (const { status, stderr } of outcomes) assert(status !== null && !stderr.includes('bug of Resus'), stderr)
  const third = await server.run(...args)
  assert.equal(third.status, 0, third.stderr)
  const valid = await server.run('init', '--validate-only')
  assert.equal(valid.status, 0, valid.stdout)
})
