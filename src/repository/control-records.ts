import { z } from 'zod'
import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import type { CallOptions } from '../storage/storage.ts'
import { CONTROL_PREFIX, randomId, timeName } from './layout.ts'
import type { Repository } from './repository.ts'
import { damaged, getObject, putObject } from './sealed-object.ts'

// Control records (docs/format.md, "Control records"):
//
//   head: { format: 1, stream, at, node, records }
//   body: one record a line, { id, at, kind, body }

/** Records that are kept by the same rules. */
export type ControlStream = 'work' | 'audit'

/** A record with its line feed. */
export const RECORD_BYTES_MAX = 64 * 1024
export const BATCH_RECORDS_MAX = 1000
export const BATCH_BYTES_MAX = 4 * 1024 * 1024
export const DAY_OBJECT_RECORDS_MAX = 8000
export const DAY_OBJECT_BYTES_MAX = 8 * 1024 * 1024

export const controlRecordSchema = z.object({
  id: z.string().min(1).max(300),
  at: z.iso.datetime({ precision: 3 }),
  kind: z.string().regex(/^[a-z][a-z-]{0,40}$/),
  body: z.record(z.string(), z.unknown()),
})
/** How the thing of this kind and id was at a time. Of several the newest counts. */
export type ControlRecord = z.infer<typeof controlRecordSchema>

const headSchema = z.object({
  format: z.literal(1),
  stream: z.string(),
  at: z.string(),
  node: z.string(),
  records: z.int().min(0).max(DAY_OBJECT_RECORDS_MAX),
})

/** An object of records, by its name. */
export interface ControlObject {
  readonly key: string
  /** `YYYYMMDD`. */
  readonly day: string
  /** Of a day's object; undefined for a batch. */
  readonly part: number | undefined
  /** The time in its name: when a batch was put, by a clock that may have been wrong; of a day's object, the day's begin. */
  readonly nameMs: number
}

/** A record as it is kept, with its line feed. */
export function recordLine(record: ControlRecord): Buffer {
  // What cannot be read back must not be kept.
  return Buffer.from(`${JSON.stringify(controlRecordSchema.parse(record))}\n`)
}

/** How many of these lines go into one object: at least one, for each is within its bound. */
export function fitting(lines: readonly Buffer[], max: { readonly records: number; readonly bytes: number }): number {
  let [count, bytes] = [0, 0]
  for (const line of lines) {
    assert(line.length <= RECORD_BYTES_MAX, 'a control record is within its bound')
    if (count === max.records || bytes + line.length > max.bytes) break
    count += 1
    bytes += line.length
  }
  return count
}

/** Keeps records under a new name, in their order. They are durable when this resolves. Throws what the storage throws. */
export async function putBatch(
  repository: Repository,
  batch: { readonly stream: ControlStream; readonly node: string; readonly nowMs: number; readonly lines: readonly Buffer[] },
  call: CallOptions = {},
): Promise<string> {
  const { stream, node, nowMs, lines } = batch
  assert(lines.length === fitting(lines, { records: BATCH_RECORDS_MAX, bytes: BATCH_BYTES_MAX }), 'a batch is within its bounds')
  const key = `${CONTROL_PREFIX}${stream}/${timeName(nowMs)}-${randomId()}`
  await putLines(repository, { key, stream, node, nowMs, lines }, call)
  return key
}

/** Puts an object of lines under a name that is new. */
export async function putLines(
  repository: Repository,
  object: {
    readonly key: string
    readonly stream: ControlStream
    readonly node: string
    readonly nowMs: number
    readonly lines: readonly Buffer[]
  },
  call: CallOptions = {},
): Promise<void> {
  const { key, stream, node, nowMs, lines } = object
  const head = { format: 1, stream, at: new Date(nowMs).toISOString(), node, records: lines.length }
  await putObject(repository.storage, repository.ring, { kind: 'control', name: key, head, body: lines }, call)
}

/** All objects of a stream, in the order in which their records count: the last is the newest. */
export async function listControlObjects(
  repository: Repository,
  stream: ControlStream,
  call: CallOptions = {},
): Promise<ControlObject[]> {
  const prefix = `${CONTROL_PREFIX}${stream}/`
  const objects: ControlObject[] = []
  for await (const { key } of repository.storage.list(prefix, call)) {
    const parts = /^(\d{8})(?:T(\d{6})Z|-(\d{4}))-[0-9a-f]{32}$/.exec(key.slice(prefix.length))
    const [, day, time = '000000', part] = parts ?? []
    if (day === undefined) continue
    const nameMs = Date.parse(`${day}T${time}Z`.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z'))
    objects.push({ key, day, part: part === undefined ? undefined : Number(part), nameMs })
  }
  return objects
}

/**
 * The records of an object, in order, and their lines as they are kept. Throws OBJECT_MISSING, and OBJECT_DAMAGED, also when one of its lines is none: it is whole or it is
 * damaged.
 */
export async function readControlObject(
  repository: Repository,
  key: string,
  call: CallOptions = {},
): Promise<{ readonly records: readonly ControlRecord[]; readonly lines: readonly Buffer[] }> {
  const { storage, ring } = repository
  const { head, body } = await getObject(storage, ring, { kind: 'control', name: key }, call)
  const pieces: Buffer[] = []
  let bytes = 0
  for await (const piece of body) {
    bytes += piece.length
    if (bytes > DAY_OBJECT_BYTES_MAX) throw damaged(key, `it has more than ${DAY_OBJECT_BYTES_MAX} bytes of records`)
    pieces.push(piece)
  }
  const known = headSchema.safeParse(head)
  if (!known.success) throw damaged(key, `its head is not that of control records: ${known.error.issues[0]?.message}`)
  const lines = [...linesOf(Buffer.concat(pieces))]
  const { records: wanted } = known.data
  if (lines.length !== wanted) throw damaged(key, `it has ${lines.length} records, its head says ${wanted}`)
  return { records: lines.map((line) => parseLine(key, line)), lines }
}

/** The same, or what is wrong with it; undefined when it is gone. Throws what the storage throws. */
export async function readControlObjectOrWhy(
  repository: Repository,
  key: string,
  call: CallOptions = {},
): Promise<Awaited<ReturnType<typeof readControlObject>> | Failure | undefined> {
  try {
    return await readControlObject(repository, key, call)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    if (error.code === 'OBJECT_MISSING') return undefined
    if (error.code === 'OBJECT_DAMAGED' || error.code === 'REPOSITORY_TOO_NEW') return error
    throw error
  }
}

function* linesOf(text: Buffer): Generator<Buffer> {
  for (let from = 0; from < text.length;) {
    const end = text.indexOf(0x0a, from)
    const to = end < 0 ? text.length : end + 1
    yield text.subarray(from, to)
    from = to
  }
}

function parseLine(key: string, line: Buffer): ControlRecord {
  try {
    const record = controlRecordSchema.safeParse(JSON.parse(line.toString('utf8')))
    if (record.success) return record.data
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
  }
  throw damaged(key, 'one of its lines is no record')
}
