import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { copyOf } from '../../test/services/copied-database.ts'
import { skip, testHospital, WORKER } from '../../test/services/hospital-database.ts'
import { Database } from '../database/database.ts'
import { beat, keepBeating, readHeartbeats } from './heartbeat.ts'

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url))
const options = { skip, timeout: 300_000 }

test('a heartbeat is a file, an event and a row, and each names the others', options, async (t) => {
  const { database, admin, home } = await testHospital(t)
  const none = await database.transaction(WORKER, async (tx) => readHeartbeats(tx, home))
  assert.deepEqual(none, { event: undefined, row: undefined, file: undefined })
  assert.deepEqual([await beat({ database, filesDirectory: home }), await beat({ database, filesDirectory: home })], [1, 2])
  const last = await database.transaction(WORKER, async (tx) => readHeartbeats(tx, home))
  assert.deepEqual([last.event?.sequence, last.row?.sequence, last.file?.sequence], [2, 2, 2])
  assert.ok(last.file!.at <= last.event!.at && last.row!.at >= last.file!.at)
  const { rows } = await admin.query(
    `select h.sequence::integer as row, h.file, e.version as event, e.payload
     from heartbeats h join events e on e.position = h.event_position order by h.sequence`,
  )
  assert.deepEqual(rows[1], {
    row: 2,
    file: 'heartbeat/2.json',
    event: 2,
    payload: { sequence: 2, row: 2, file: 'heartbeat/2.json' },
  })
  const file = JSON.parse(await readFile(join(home, 'heartbeat', '2.json'), 'utf8')) as Record<string, unknown>
  assert.deepEqual([file['sequence'], file['event'], file['row']], [2, 'Heartbeat/1 version 2', 2])
})

test('only the newest files are kept, also of a service that was away', options, async (t) => {
  const { database, home } = await testHospital(t)
  for (let count = 0; count < 6; count += 1) await beat({ database, filesDirectory: home, filesKept: 3 })
  assert.deepEqual((await readdir(join(home, 'heartbeat'))).toSorted(), ['4.json', '5.json', '6.json'])
  await writeFile(join(home, 'heartbeat', '2.json'), '{}')
  const controller = new AbortController()
  const beating = keepBeating({ database, filesDirectory: home, filesKept: 3, signal: controller.signal, report: assert.fail })
  while (!(await readdir(join(home, 'heartbeat'))).includes('7.json')) await sleep(20)
  controller.abort()
  await beating
  assert.equal((await readdir(join(home, 'heartbeat'))).includes('2.json'), false)
})

test(
  'files that are ahead of a restored database are kept aside, and the numbers go on from the database',
  options,
  async (t) => {
    const hospital = await testHospital(t)
    const { home } = hospital
    for (let count = 0; count < 2; count += 1) await beat({ database: hospital.database, filesDirectory: home })
    const restored = await copyOf(t, hospital)
    for (let count = 0; count < 3; count += 1) await beat({ database: hospital.database, filesDirectory: home })
    const before = await restored.database.transaction(WORKER, async (tx) => readHeartbeats(tx, home))
    assert.deepEqual([before.event?.sequence, before.row?.sequence, before.file?.sequence], [2, 2, 5])

    assert.equal(await beat({ database: restored.database, filesDirectory: home }), 3)
    const names = (await readdir(join(home, 'heartbeat'))).toSorted()
    assert.deepEqual(names.slice(0, 3), ['1.json', '2.json', '3.json'])
    assert.match(names[3]!, /^ahead-of-3-/)
    const kept = await readdir(join(home, 'heartbeat', names[3]!))
    assert.deepEqual(kept.toSorted(), ['3.json', '4.json', '5.json'])
    const evidence = JSON.parse(await readFile(join(home, 'heartbeat', names[3]!, '5.json'), 'utf8')) as { sequence: number }
    assert.equal(evidence.sequence, 5)
  },
)

test('a database that goes back under a running service is noticed at the next beat', options, async (t) => {
  const { database, home } = await testHospital(t)
  await beat({ database, filesDirectory: home })
  await writeFile(join(home, 'heartbeat', '9.json'), '{"sequence":9,"at":"2026-11-21T10:00:00.000Z"}')
  assert.equal(await beat({ database, filesDirectory: home, previous: 9 }), 2)
  assert.equal((await readdir(join(home, 'heartbeat'))).includes('9.json'), false)
})

test('of two services on one database one beats at a time, and no number is left out or given twice', options, async (t) => {
  const { database, admin, home, connectionString } = await testHospital(t)
  const other = new Database({ connectionString })
  t.after(async () => other.close())
  const beats = await Promise.all(
    Array.from({ length: 20 }, async (_, index) => beat({ database: index % 2 === 0 ? database : other, filesDirectory: home })),
  )
  const made = beats.filter((each) => each !== undefined).toSorted((a, b) => a - b)
  assert.ok(made.length > 0)
  assert.deepEqual(
    made,
    made.map((_, index) => index + 1),
  )
  const { rows } = await admin.query<{ n: number }>('select count(*)::integer as n from heartbeats')
  assert.equal(rows[0]?.n, made.length)
})

test('the service beats, publishes and ends when it is told to; each worker can be left out', options, async (t) => {
  const { connectionString, admin, home } = await testHospital(t)
  const serve = async (flags: readonly string[], ready: () => Promise<boolean>): Promise<number | null> => {
    const words = [MAIN, '--home', home, '--database', connectionString, 'serve', '--port', '0', ...flags]
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'ignore'] })
    t.after(() => child.kill('SIGKILL'))
    await new Promise((resolve) => child.stdout.once('data', resolve))
    while (!(await ready())) await sleep(50)
    const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    return await exited
  }
  const count = async (table: string): Promise<number> => {
    const { rows } = await admin.query<{ n: number }>(`select count(*)::integer as n from ${table}`)
    return rows[0]!.n
  }
  const quiet = await serve(['--no-topics', '--no-messages', '--no-heartbeat'], async () => sleep(1500, true))
  assert.equal(quiet, 0)
  assert.deepEqual([await count('heartbeats'), await count('published_records'), await count('known_cluster')], [0, 0, 0])
  const status = await serve([], async () => (await count('heartbeats')) >= 2 && (await count('published_records')) >= 5)
  assert.equal(status, 0)
  assert.equal(await count('known_cluster'), 1)
})
