import assert from 'node:assert/strict'
import test, { after } from 'node:test'
import pg from 'pg'
import { stopTestStore, testDatabase, testStore } from '../../test/services/store.ts'
import { migrate } from './migrate.ts'
import { isStoreAway, Store } from './store.ts'

after(stopTestStore)

test('two nodes that open an empty store at once both find its tables', async () => {
  const connectionString = await testDatabase()
  const [first, second] = await Promise.all([Store.open(connectionString), Store.open(connectionString)])
  await using stack = new AsyncDisposableStack()
  for (const store of [first, second]) {
    stack.use(store)
    assert.deepEqual(await store.sql.selectFrom('tasks').select('id').execute(), [])
  }
  assert.deepEqual(await migrate(connectionString), [])
})

test('a store that another version has made is refused, and left as it is', async (t) => {
  const store = await testStore(t)
  const client = new pg.Client({ connectionString: store.connectionString })
  await client.connect()
  t.after(async () => client.end())
  await client.query("insert into resus_control.migrations (name, sha256) values ('9999-of-the-future.sql', 'x')")
  await assert.rejects(Store.open(store.connectionString), { code: 'STORE_FOREIGN', message: /9999-of-the-future/ })
  await client.query("delete from resus_control.migrations where name = '9999-of-the-future.sql'")
  await client.query("update resus_control.migrations set sha256 = 'other'")
  await assert.rejects(Store.open(store.connectionString), { code: 'STORE_FOREIGN', message: /was another/ })
})

test('a store that does not answer is told from a mistake in a query', async (t) => {
  await assert.rejects(Store.open('postgres://resus@127.0.0.1:1/none'), (error) => {
    assert(isStoreAway(error))
    return true
  })
  const store = await testStore(t)
  await assert.rejects(
    store.sql
      .selectFrom('tasks')
      .select('nonsense' as never)
      .execute(),
    (error) => {
      assert(!isStoreAway(error))
      return true
    },
  )
  const client = await store.connect()
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  const other = await store.connect()
  await other.query('select pg_terminate_backend($1)', [rows[0]!.pid])
  other.release()
  await assert.rejects(client.query('select pg_sleep(5)'), (error) => {
    assert(isStoreAway(error), String(error))
    return true
  })
  client.release(true)
})
