import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { systemClock } from '../../src/clock.ts'
import { parseLsn, type Lsn } from '../../src/postgres/lsn.ts'
import { WalDecoder } from '../../src/postgres/wal-decoder.ts'
import { segmentName, segmentStart } from '../../src/postgres/wal-segment.ts'
import { streamSchema } from '../../src/protect/postgres/component.ts'
import type { StreamEvent } from '../../src/protect/postgres/stream-event.ts'
import { streamWal, type StreamOptions, type StreamResult } from '../../src/protect/postgres/stream.ts'
import { initRepository, type Repository } from '../../src/repository/repository.ts'
import { coverage } from '../../src/repository/wal-archive.ts'
import { listBranches, type Branch } from '../../src/repository/wal-branch.ts'
import { readSegmentBytes } from '../../src/repository/wal-segment-bytes.ts'
import { Secret } from '../../src/secret.ts'
import { DirectoryStorage } from '../../src/storage/directory-storage.ts'
import { FaultyStorage, type Fault, type FaultDecision } from '../../src/storage/faulty-storage.ts'
import { HANGS_AFTER_MS } from './wait-until.ts'

/** A directory that is removed when the test ends. */
export async function testDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-stream-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

export interface StreamHome {
  readonly repository: Repository
  readonly repositoryDirectory: string
  readonly spoolDirectory: string
  /** What the storage does wrong; settable while it runs. */
  faults: (decision: FaultDecision) => Fault | undefined
}

/** A repository in a directory, behind faults that the test decides on, and a place for a spool. */
export async function streamHome(t: TestContext): Promise<StreamHome> {
  const directory = await testDirectory(t)
  const repositoryDirectory = join(directory, 'repository')
  const inner = new DirectoryStorage(repositoryDirectory)
  await inner.prepare()
  let faults: StreamHome['faults'] = () => undefined
  const storage = new FaultyStorage(inner, (decision) => faults(decision))
  const access = { storage, passphrase: new Secret('test'), system: 'test' }
  const { repository } = await initRepository(access, { clock: systemClock, kdfCost: 1024 })
  return {
    repository,
    repositoryDirectory,
    spoolDirectory: join(directory, 'spool'),
    get faults() {
      return faults
    },
    set faults(decide) {
      faults = decide
    },
  }
}

export interface RunningStream {
  readonly events: StreamEvent[]
  /** Resolves with the first event, past or to come, that fits; fails when the stream ends before. */
  waitFor(fits: (event: StreamEvent) => boolean): Promise<StreamEvent>
  /** Tells it to stop. */
  stop(): Promise<StreamResult>
  readonly result: Promise<StreamResult>
}

/** A receiver in this process; stopped when the test ends. */
export function startStream(
  t: TestContext,
  home: StreamHome,
  options: { connectionString: string; settings?: StreamSettings } & Partial<StreamOptions>,
): RunningStream {
  const { connectionString, settings, ...more } = options
  const events: StreamEvent[] = []
  const listeners = new Set<() => void>()
  const stop = new AbortController()
  const result = streamWal({
    repository: home.repository,
    component: component(connectionString, settings),
    spoolDirectory: home.spoolDirectory,
    clock: systemClock,
    signal: stop.signal,
    onEvent: (event) => {
      events.push(event)
      for (const listener of listeners) listener()
    },
    ...more,
  })
  const stopped = async () => {
    stop.abort()
    return await result
  }
  result.catch(() => undefined)
  t.after(() => stopped().catch(() => undefined))
  const waitFor = async (fits: (event: StreamEvent) => boolean): Promise<StreamEvent> => {
    const found = Promise.withResolvers<StreamEvent>()
    const look = () => {
      const event = events.find(fits)
      if (event !== undefined) found.resolve(event)
    }
    listeners.add(look)
    look()
    const seen = () => events.slice(-20).map(({ kind }) => kind)
    const timer = setTimeout(() => found.reject(new Error(`no such event; the last were ${seen().join(', ')}`)), HANGS_AFTER_MS)
    void result.then(
      () => found.reject(new Error(`the stream ended before such an event; the last were ${seen().join(', ')}`)),
      (error: unknown) => found.reject(error),
    )
    try {
      return await found.promise
    } finally {
      clearTimeout(timer)
      listeners.delete(look)
    }
  }
  return { events, waitFor, stop: stopped, result }
}

export type StreamSettings = Partial<StreamOptions['component']['stream']>

export function component(connectionString: string, settings: StreamSettings = {}): StreamOptions['component'] {
  const stream = streamSchema.parse({ partialEverySeconds: 1, ...settings })
  return { name: 'db', connection: new Secret(connectionString), stream }
}

/** A client that is ended when the test ends, and does not mind that its server dies. */
export async function connect(t: TestContext, connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString })
  client.on('error', () => undefined)
  await client.connect()
  t.after(() => client.end())
  return client
}

export async function flushLsn(client: pg.Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn() AS lsn')
  return parseLsn(rows[0]!.lsn)
}

/** Writes about a megabyte of WAL. */
export async function writeWal(client: pg.Client, table = 'written'): Promise<void> {
  await client.query(`CREATE TABLE IF NOT EXISTS ${table} (id bigserial, filler text)`)
  await client.query(`INSERT INTO ${table} (filler) SELECT repeat(md5(i::text), 20) FROM generate_series(1, 1300) i`)
}

/** The transactions that committed in what the repository holds of a branch without a gap, and where that ends. */
export async function recoveredCommits(repository: Repository, branch: Branch): Promise<{ xids: Set<number>; endLsn: Lsn }> {
  const { endLsn, objects } = await coverage(repository, branch, branch.head.firstLsn)
  const xids = new Set<number>()
  const decoder = new WalDecoder({
    startLsn: branch.head.firstLsn,
    segmentSizeBytes: branch.head.segmentSize,
    checkCrc: true,
    onFact: (fact) => {
      if (fact.kind === 'commit' && fact.xid !== undefined) xids.add(fact.xid)
    },
  })
  let at = branch.head.firstLsn
  for (const segment of new Map(objects.map((object) => [segmentName(object.segment), object.segment])).values()) {
    const stored = await readSegmentBytes(repository, branch, segment)
    assert.ok(stored !== undefined)
    const bytes = await collect(stored.bytes)
    const real = bytes.subarray(0, stored.realBytes)
    decoder.feed(at, real)
    at += BigInt(real.length)
  }
  assert.equal(at, endLsn)
  assert.equal(decoder.ended, undefined)
  return { xids, endLsn }
}

/** Every whole segment of the branch is what the server has in `pg_wal`, byte for byte; gives how many there were. */
export async function compareWithServer(repository: Repository, branch: Branch, dataDirectory: string): Promise<number> {
  const { objects } = await coverage(repository, branch, branch.head.firstLsn)
  let compared = 0
  for (const { segment, from, to } of objects) {
    if (from !== 0 || to !== segment.sizeBytes) continue
    const stored = await readSegmentBytes(repository, branch, segment)
    const expected = await readFile(join(dataDirectory, 'pg_wal', segmentName(segment)))
    assert.ok(expected.equals(await collect(stored!.bytes)), `segment ${segmentName(segment)} at ${segmentStart(segment)}`)
    compared += 1
  }
  return compared
}

export async function collect(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const piece of bytes) pieces.push(piece)
  return Buffer.concat(pieces)
}

export async function onlyBranch(repository: Repository): Promise<Branch> {
  const branches = await listBranches(repository, 'db')
  assert.equal(branches.length, 1)
  return branches[0]!
}

export interface ReceiverProcess {
  readonly child: ChildProcess
  /** Resolves when it has printed an event of this kind. */
  printed(kind: string): Promise<void>
  kill(): Promise<void>
}

/** A receiver in a process of its own, for SIGKILL. */
export function startReceiverProcess(t: TestContext, home: StreamHome, connectionString: string): ReceiverProcess {
  const script = fileURLToPath(new URL('receiver-process.ts', import.meta.url))
  const child = spawn(process.execPath, [script, home.repositoryDirectory, home.spoolDirectory, connectionString], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  let output = ''
  const listeners = new Set<() => void>()
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString()
    for (const listener of listeners) listener()
  })
  const kill = async () => {
    child.kill('SIGKILL')
    await exited
  }
  t.after(kill)
  const printed = async (kind: string) => {
    const found = Promise.withResolvers<void>()
    const look = () => {
      if (output.includes(`{"kind":"${kind}"`)) found.resolve()
    }
    listeners.add(look)
    look()
    void exited.then(() => found.reject(new Error(`the receiver ended before "${kind}": ${output.slice(-2000)}`)))
    await found.promise
    listeners.delete(look)
  }
  return { child, printed, kill }
}
