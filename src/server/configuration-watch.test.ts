import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import type { Clock } from '../clock.ts'
import type { Systems } from '../config/systems.ts'
import { Failure } from '../errors.ts'
import { configurationFingerprint, ConfigurationWatch } from './configuration-watch.ts'

function configuration(state: string): string {
  return JSON.stringify({
    system: 'osun',
    state,
    timeZone: 'Africa/Lagos',
    repository: { storages: [{ name: 'main', kind: 'directory', path: '/repository' }], key: { passphrase: 'file:secret' } },
    components: { 'his-db': { kind: 'postgres', tier: 'low', connection: 'postgres://x@/x', dataDirectory: '/data' } },
  })
}

test('a change that cannot be taken for a while is told once, and taken when it can; nobody has to touch the file', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'resus-watch-'))
  t.after(async () => rm(home, { recursive: true, force: true }))
  const configPath = join(home, 'resus.yaml')
  await writeFile(configPath, configuration('one'))
  const fingerprint = await configurationFingerprint(configPath)
  await writeFile(configPath, configuration('two'))
  const over = new AbortController()
  const clock: Clock = { now: () => Date.now(), sleep: async () => new Promise((settle) => void setImmediate(settle)) }
  const reports: string[] = []
  let tries = 0
  const taken: string[] = []
  const take = async ({ systems }: Systems) => {
    tries += 1
    if (tries < 4) throw new Failure('DISK_FULL', 'the configuration cannot be kept')
    taken.push(...systems.map(({ state }) => state))
    over.abort()
  }
  const watch = new ConfigurationWatch({
    configPath,
    fingerprint,
    refused: null,
    clock,
    admit: async (all) => ({ systems: all, waiting: [] }),
    report: (text) => {
      reports.push(text)
      // A change that is given up would be waited for without end.
      if (reports.length > 4) over.abort()
    },
    take,
  })
  const limit = setTimeout(() => over.abort(), 5_000)
  await watch.run(over.signal)
  clearTimeout(limit)
  assert.deepEqual(taken, [join(home, 'two')])
  assert.equal(watch.refused, null)
  assert.equal(reports.length, 2, reports.join('\n'))
})
