import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyReply } from 'fastify'
import { eventsBehind, readTask } from '../../catalog/tasks.ts'
import { Failure } from '../../errors.ts'
import type { Control } from '../control.ts'
import { eventDocument } from './task-document.ts'

const POLL_MS = 500
const KEEP_ALIVE_MS = 15_000
/** Then whoever watches asks again, and is asked again who they are: somebody may have been disabled since. */
const STREAM_MS_MAX = 300_000
const EVENTS_AT_ONCE = 500
const STREAMS_MAX = 100

let streams = 0

/**
 * Sends a task's events as they come (https://html.spec.whatwg.org/multipage/server-sent-events.html): `state` and `log` with their numbers as ids, `progress`
 * without one, for it is no news when the next is there; `end` when the task has ended, and the connection with it. Throws BUSY.
 */
export async function sendEvents(
  { reply, control, signal }: { reply: FastifyReply; control: Control; signal: AbortSignal },
  from: { readonly id: string; readonly behind: number },
): Promise<void> {
  if (streams >= STREAMS_MAX)
    throw new Failure('BUSY', `${STREAMS_MAX} streams are open already`, { hint: 'poll the task instead, or close one' })
  streams += 1
  reply.hijack()
  const gone = new AbortController()
  const out = reply.raw
  // Of the connection: a request is closed as soon as it was read.
  out.once('close', () => gone.abort())
  const headers = { ...reply.getHeaders(), 'Content-Type': 'text/event-stream; charset=utf-8', 'X-Accel-Buffering': 'no' }
  for (const [name, value] of Object.entries(headers)) if (value !== undefined) out.setHeader(name, value)
  out.writeHead(200)
  const write = async (text: string) => {
    // A watcher that does not read holds nothing of ours up but its own stream.
    if (!out.write(text)) await once(out, 'drain', { signal: AbortSignal.any([gone.signal, signal]) })
  }
  try {
    await send(control, from, { write, signal: AbortSignal.any([gone.signal, signal]) })
  } catch {
    // It went away, or the store did: whoever watches asks again, behind the last number that came.
  } finally {
    streams -= 1
    out.end()
  }
}

async function send(
  control: Control,
  from: { readonly id: string; readonly behind: number },
  { write, signal }: { write: (text: string) => Promise<void>; signal: AbortSignal },
): Promise<void> {
  let { behind } = from
  let progress = ''
  let quietMs = 0
  const untilMs = control.now + STREAM_MS_MAX
  while (!signal.aborted && control.now < untilMs) {
    const task = await readTask(control.store.sql, from.id)
    const events = await eventsBehind(control.store.sql, from.id, behind, EVENTS_AT_ONCE)
    for (const event of events) {
      behind = event.number
      await write(`id: ${event.number}\nevent: ${event.kind}\ndata: ${JSON.stringify(eventDocument(event))}\n\n`)
    }
    const now = JSON.stringify(task?.progress ?? null)
    if (now !== progress && task?.state === 'running') await write(`event: progress\ndata: ${now}\n\n`)
    quietMs = events.length > 0 || now !== progress ? 0 : quietMs + POLL_MS
    progress = now
    if (events.length === EVENTS_AT_ONCE) continue
    if (task === undefined || (task.state !== 'running' && task.state !== 'waiting')) {
      await write(`event: end\ndata: ${JSON.stringify({ state: task?.state ?? null })}\n\n`)
      return
    }
    if (quietMs >= KEEP_ALIVE_MS) {
      await write(': still here\n\n')
      quietMs = 0
    }
    await delay(POLL_MS, undefined, { signal })
  }
}
