import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { testAuthority, type Certificate } from '../../test/services/certificates.ts'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import type { Store } from '../catalog/store.ts'
import { systemClock } from '../clock.ts'
import { AuditSyslog } from './audit-syslog.ts'
import { AuditTrail } from './audit-trail.ts'

after(stopTestStore)

const { signal } = new AbortController()
const authority = testAuthority()
const MINUTE_MS = 60_000

/** A receiver of syslog, as it comes: reads frames by their counts, and closes when we do. */
class Receiver {
  readonly messages: string[] = []
  /** What becomes of the next connections. */
  mode: 'takes' | 'breaks' | 'closes' | 'ends' | 'stalls' = 'takes'
  readonly #server
  readonly #sockets = new Set<TLSSocket>()
  port = 0

  constructor(certificate: Certificate) {
    this.#server = createTlsServer(certificate, (socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => undefined)
      if (this.mode === 'stalls') return void socket.pause()
      if (this.mode === 'ends') return void socket.pause().end()
      if (this.mode === 'closes') return void socket.destroy()
      const pieces: Buffer[] = []
      socket.on('data', (piece: Buffer) => {
        pieces.push(piece)
        this.#take(Buffer.concat(pieces))
        if (this.mode === 'breaks') socket.destroy()
      })
    })
    this.#server.on('tlsClientError', () => undefined)
  }

  async listen(port = 0): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve))
    this.port = (this.#server.address() as AddressInfo).port
    return this
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  #take(bytes: Buffer): void {
    const messages: string[] = []
    for (let at = 0; at < bytes.length;) {
      const space = bytes.indexOf(0x20, at)
      const length = Number(bytes.subarray(at, space).toString())
      assert(length > 0 && space > at, 'a frame begins with its length')
      if (space + 1 + length > bytes.length) break
      messages.push(bytes.subarray(space + 1, space + 1 + length).toString('utf8'))
      at = space + 1 + length
    }
    for (const message of messages) if (this.messages.at(-1) !== message && !this.#seen.has(message)) this.messages.push(message)
    for (const message of messages) this.#seen.add(message)
  }

  readonly #seen = new Set<string>()
}

async function place(t: TestContext, certificate = authority.issue(['localhost', '127.0.0.1'])) {
  const store = await testStore(t)
  const state = await mkdtemp(join(tmpdir(), 'resus-audit-'))
  t.after(() => rm(state, { recursive: true, force: true }))
  let now = Date.UTC(2026, 10, 21, 12)
  const clock = { ...systemClock, now: () => now }
  const trail = new AuditTrail({ store, node: 'db host', clock, state })
  await trail.begin(undefined)
  const receiver = await new Receiver(certificate).listen()
  t.after(async () => receiver.close())
  return { store, clock, trail, receiver, pass: (ms: number) => (now += ms) }
}

function syslogOf(store: Store, port: number, clock = systemClock, pauseMs = 20): AuditSyslog {
  return new AuditSyslog({ store, clock, host: '127.0.0.1', port, pauseMs, readCa: async () => Buffer.from(authority.cert) })
}

async function append(trail: AuditTrail, store: Store, reason: string, outcome: 'done' | 'refused' = 'done'): Promise<void> {
  const actor = { kind: 'person', id: '7', name: 'ada' } as const
  await trail.append(store.sql, { actor, action: 'backup.start', outcome, reason })
}

function seqs(receiver: Receiver): number[] {
  return receiver.messages.map((message) => (JSON.parse(message.slice(message.indexOf('{'))) as { seq: number }).seq)
}

test('each entry goes out as a message of RFC 5424 with its length before it, in order', async (t) => {
  const { store, trail, receiver, clock } = await place(t)
  await append(trail, store, 'Ọ̀ṣun\nhas two lines', 'refused')
  const syslog = syslogOf(store, receiver.port, clock)
  await syslog.look(signal)
  assert.match(receiver.messages[1]!, /^<108>1 2026-11-21T12:00:00\.000Z db-host resus - backup\.start - \{/)
  const entry = JSON.parse(receiver.messages[1]!.slice(receiver.messages[1]!.indexOf('{'))) as Record<string, unknown>
  assert.deepEqual([entry['seq'], entry['reason'], String(entry['hash']).length], [2, 'Ọ̀ṣun\nhas two lines', 64])
  for (let at = 0; at < 250; at += 1) await append(trail, store, String(at))
  await syslog.look(signal)
  assert.deepEqual(
    seqs(receiver),
    Array.from({ length: 252 }, (_, at) => at + 1),
  )
  assert.equal(syslog.late, null)
})

test('a receiver that breaks off, or closes without having read, gets the same again; none is left out', async (t) => {
  const { store, trail, receiver, clock } = await place(t)
  const syslog = syslogOf(store, receiver.port, clock)
  for (const mode of ['closes', 'ends', 'breaks'] as const) {
    receiver.mode = mode
    receiver.messages.length = 0
    for (let at = 0; at < 150; at += 1) await append(trail, store, 'x'.repeat(1500))
    // One that ends has to do so before we do, also on a machine that is slow.
    await syslogOf(store, receiver.port, clock, mode === 'ends' ? 2000 : 20).look(signal)
  }
  receiver.mode = 'takes'
  await syslog.look(signal)
  const taken = new Set(seqs(receiver))
  const all = Array.from({ length: 451 }, (_, at) => at + 1)
  assert.deepEqual(
    all.filter((seq) => !taken.has(seq)),
    [],
  )
})

test('a receiver that stalls takes nothing, is told after five minutes, and gets all when it is back', async (t) => {
  const { store, trail, receiver, clock, pass } = await place(t)
  const syslog = syslogOf(store, receiver.port, clock)
  receiver.mode = 'stalls'
  await append(trail, store, 'a')
  const soon = AbortSignal.timeout(500)
  await syslog.look(soon)
  assert.deepEqual(receiver.messages, [])
  pass(4 * MINUTE_MS)
  assert.equal(syslog.late, null)
  pass(MINUTE_MS)
  assert.match(syslog.late!, /no entry of the trail for 5 min/)
  await receiver.close()
  await syslog.look(signal)
  assert.match(syslog.late!, /ECONNREFUSED/)
  const again = await new Receiver(authority.issue(['127.0.0.1'])).listen(receiver.port)
  t.after(async () => again.close())
  // Another process goes on where the store says.
  await syslogOf(store, again.port, clock).look(signal)
  await syslog.look(signal)
  assert.equal(syslog.late, null)
  assert.deepEqual(seqs(again), [1, 2])
})

test('to one whose certificate is not from the authority, not of its name, or expired, nothing goes', async (t) => {
  for (const certificate of [
    testAuthority('Another').issue(['127.0.0.1']),
    authority.issue(['elsewhere.example']),
    authority.issue(['127.0.0.1'], { expired: true }),
  ]) {
    const { store, receiver, clock, pass } = await place(t, certificate)
    const syslog = syslogOf(store, receiver.port, clock)
    await syslog.look(signal)
    pass(6 * MINUTE_MS)
    assert.match(syslog.late!, /certificate|altnames|self-signed|verify/i)
    assert.deepEqual(receiver.messages, [])
  }
})

test('one that speaks no TLS gets nothing', async (t) => {
  const { store, clock, pass } = await place(t)
  const got: Buffer[] = []
  const server = createServer((socket) => {
    socket.on('data', (piece: Buffer) => got.push(piece))
    socket.end('no')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const syslog = syslogOf(store, (server.address() as AddressInfo).port, clock)
  await syslog.look(signal)
  pass(6 * MINUTE_MS)
  assert.notEqual(syslog.late, null)
  assert(!Buffer.concat(got).includes('audit.begun'))
})
