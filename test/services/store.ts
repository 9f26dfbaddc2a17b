import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import pg from 'pg'
import { startEmbeddedStore, type EmbeddedStore } from '../../src/catalog/embedded-store.ts'
import { Store } from '../../src/catalog/store.ts'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'

let shared: Promise<{ server: EmbeddedStore; home: string }> | undefined
let databases = 0

/** A fresh, migrated store for one test, in a database of its own. One server serves all tests of a file, and ends with them. */
export async function testStore(t: TestContext): Promise<Store> {
  const store = await Store.open(await testDatabase())
  t.after(async () => store[Symbol.asyncDispose]())
  return store
}

/** An empty database on the shared server. */
export async function testDatabase(): Promise<string> {
  shared ??= startShared()
  const { server } = await shared
  databases += 1
  const name = `store_${process.pid}_${databases}`
  const admin = new pg.Client({ connectionString: server.connectionString })
  await admin.connect()
  await admin.query(`create database ${name}`)
  await admin.end()
  return server.connectionString.replace('/postgres?', `/${name}?`)
}

async function startShared() {
  const home = await mkdtemp(join(await openTemporaryDirectory(), 'resus-store-'))
  await chmod(home, 0o711)
  return { home, server: await startEmbeddedStore(home) }
}

/** Ends the server: call it in an `after` of the file. */
export async function stopTestStore(): Promise<void> {
  if (shared === undefined) return
  const { server, home } = await shared
  shared = undefined
  await server[Symbol.asyncDispose]()
  await rm(home, { recursive: true, force: true })
}
