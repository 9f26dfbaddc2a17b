import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test, { after } from 'node:test'
import { sql } from 'kysely'
import pg from 'pg'
import { PgBoss } from 'pg-boss'
import { stopTestStore, testDatabase } from '../../test/services/store.ts'
import { TaskQueue } from '../server/task-queue.ts'
import { Store } from './store.ts'

after(stopTestStore)

test('a queue that a superuser made before is worked with by the role of the store', async (t) => {
  const connectionString = await testDatabase()
  const boss = new PgBoss({ connectionString, schema: 'resus_queue', schedule: false })
  await boss.start()
  await boss.createQueue('earlier', { policy: 'stately' })
  await boss.send('earlier', { taskId: 'x' })
  await boss.stop({ graceful: false })
  const store = await Store.open(connectionString)
  t.after(async () => store[Symbol.asyncDispose]())
  const queue = await TaskQueue.open(store, (error) => t.diagnostic(error.message))
  t.after(async () => queue[Symbol.asyncDispose]())
  const lane = { system: 'osun', component: 'his-db', kind: 'backup', lane: 'backup' }
  const task = { id: randomUUID(), ...lane, parameters: {}, requestedBy: 'ada', at: new Date() }
  assert(await queue.request(task))
  const held = await queue.fetch(lane)
  assert.equal(held?.taskId, task.id)
  const { rows } = await sql<{ owner: string }>`
    select distinct pg_get_userbyid(relowner) as owner from pg_class
    where relnamespace = 'resus_queue'::regnamespace and relkind in ('r', 'p', 'v', 'S')`.execute(store.sql)
  assert.deepEqual(rows, [{ owner: 'resus_store' }])
})

test('who works with the store owns none of its tables, and is no superuser', async (t) => {
  const connectionString = await testDatabase()
  const store = await Store.open(connectionString)
  t.after(async () => store[Symbol.asyncDispose]())
  const { rows } = await sql<{ name: string; super: boolean }>`
    select current_user as name, rolsuper as super from pg_roles where rolname = session_user`.execute(store.sql)
  assert.deepEqual(rows, [{ name: 'resus_store', super: false }])
  for (const statement of [
    'drop table resus_control.tasks',
    'alter table resus_control.tasks disable trigger all',
    'delete from resus_control.migrations',
    'create table resus_control.mine (x int)',
    "copy resus_control.tasks to program 'true'",
  ]) {
    await assert.rejects(sql.raw(statement).execute(store.sql), { code: '42501' }, statement)
  }
})

test('another server, where it is nobody, is worked with as it was given', async (t) => {
  const connectionString = await testDatabase()
  const client = new pg.Client({ connectionString })
  await client.connect()
  t.after(async () => client.end())
  await client.query('create role somebody login')
  await client.query(`create schema resus_control authorization somebody`)
  await client.query(`grant create on database ${/\/([^/?]+)\?/.exec(connectionString)![1]!} to somebody`)
  const given = connectionString.replace('://postgres@', '://somebody@')
  const store = await Store.open(given)
  t.after(async () => store[Symbol.asyncDispose]())
  assert.equal(store.workingConnectionString, given)
  assert.deepEqual(await store.sql.selectFrom('tasks').select('id').execute(), [])
})
