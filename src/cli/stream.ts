import { configuredComponent, openConfigured, resolveComponent } from '../config/open.ts'
import { formatLsn } from '../postgres/lsn.ts'
import { streamSpool } from '../protect/postgres/component.ts'
import { streamWal } from '../protect/postgres/stream.ts'
import type { Backlog, StreamEvent } from '../protect/postgres/stream-event.ts'
import type { Verb } from './verb.ts'

/** Runs until it is told to end. What was acknowledged to the server is durable at every instant, however it ends. */
export const run: Verb = async (context, given) => {
  const configuration = await context.configuration()
  const component = await resolveComponent(configuredComponent(configuration, given.args[0]), context.warn)
  const repository = await openConfigured(configuration, context.warn)
  const reached = new StreamReach()
  await streamWal({
    repository,
    component,
    spoolDirectory: streamSpool(configuration.state, component.name),
    clock: context.clock,
    signal: context.signal,
    onEvent: (event) => {
      reached.note(event)
      const text = describeEvent(event)
      if (text !== undefined) context.progress.print(text)
      // Not for each acknowledgement: a server that commits often makes thousands a second.
      else if (event.kind === 'stored')
        context.progress.report({ phase: `receiving WAL of "${component.name}"`, bytesDone: reached.bytes, bytesTotal: 0 })
    },
  })
  const json = { component: component.name, acknowledged: reached.acknowledged, archived: reached.archived, bytes: reached.bytes }
  return { json, text: `the receiver of "${component.name}" has ended: ${reached.describe()}` }
}

/** How far the stream has come. */
class StreamReach {
  acknowledged: string | null = null
  archived: string | null = null
  bytes = 0

  note(event: StreamEvent): void {
    if (event.kind === 'acknowledged') this.acknowledged = formatLsn(event.lsn)
    if (event.kind === 'archived') this.archived = formatLsn(event.lsn)
    if (event.kind === 'stored') this.bytes += Number(event.to - event.from)
  }

  describe(): string {
    const archived = this.archived === null ? 'nothing new is in the repository' : `the repository has it up to ${this.archived}`
    return this.acknowledged === null ? 'no WAL came' : `acknowledged up to ${this.acknowledged}, ${archived}`
  }
}

/** What an operator should read. Undefined for what happens all the time. */
function describeEvent(event: StreamEvent): string | undefined {
  switch (event.kind) {
    case 'acknowledged':
    case 'stored':
    case 'archived':
      return undefined
    case 'connected':
      return `connected: timeline ${event.branch.head.timeline}, from ${formatLsn(event.startLsn)}, server at ${formatLsn(event.serverLsn)}`
    case 'alarm':
      return `ALARM ${event.code}, attempt ${event.attempts}: ${event.message}${describeBacklog(event.backlog)}`
    case 'cleared':
      return `alarm ${event.code} is over`
    case 'switched':
      return `the server went to timeline ${event.timeline} at ${formatLsn(event.lsn)}`
    case 'diverged':
      return (
        `the cluster went another way than what was archived: a new branch begins at ${formatLsn(event.lsn)}, the old one is kept. ` +
        'Take a backup now: nothing of the new one can be restored without'
      )
    case 'gap':
      return `GAP: the server no longer has [${formatLsn(event.from)}, ${formatLsn(event.to)}): take a backup now`
    case 'disconnected':
      return `disconnected (${event.code}): ${event.message}; trying again in ${event.retryInMs} ms`
    case 'stopped':
      return 'stopped'
    default:
      return event satisfies never
  }
}

/** How much the spool holds, and how long it has room at this rate. */
function describeBacklog(backlog: Backlog | undefined): string {
  if (backlog === undefined) return ''
  const { waitingBytes, spoolBytesMax, secondsUntilFull } = backlog
  const mebibytes = (bytes: number) => `${(bytes / 1024 ** 2).toFixed(0)} MiB`
  const held = `; ${mebibytes(waitingBytes)} of ${mebibytes(spoolBytesMax)} wait in the spool`
  if (secondsUntilFull === null) return held
  if (secondsUntilFull === 0) return `${held}, which is full`
  const minutes = secondsUntilFull / 60
  const time =
    minutes < 2 ? `${secondsUntilFull} s` : minutes < 180 ? `${Math.round(minutes)} min` : `${Math.round(minutes / 60)} h`
  return `${held}, which at this rate is full in ${time}`
}
