import { assert } from '../assert.ts'
import { Failure } from '../errors.ts'
import { formatLsn, parseLsn, type Lsn } from './lsn.ts'

/** A timeline that was left: the next one branches off at `endLsn`. */
export interface TimelineBranch {
  readonly timeline: number
  readonly endLsn: Lsn
  /** Why, in the words of the server that was promoted: `no recovery target specified`. */
  readonly reason: string
}

const FILE_NAME = /^([0-9A-F]{8})\.history$/
/** PostgreSQL's own limit of one line. */
const LINE_CHARACTERS_MAX = 1024

/** `00000002.history`. The first timeline has none. */
export function historyFileName(timeline: number): string {
  assert(Number.isInteger(timeline) && timeline > 1 && timeline <= 0xffffffff, `timeline ${timeline} has a history`)
  return `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`
}

/** The timeline whose history file has that name; undefined when the name is not one. */
export function parseHistoryFileName(name: string): number | undefined {
  const timeline = Number.parseInt(FILE_NAME.exec(name)?.[1] ?? '', 16)
  return timeline > 1 ? timeline : undefined
}

/**
 * Reads the history of a timeline: its ancestors, oldest first, each with the LSN at which it was left. One line each: timeline,
 * LSN, reason, with tabs or spaces between; empty lines and what follows a `#` do not count. Throws WAL_INVALID.
 */
export function parseTimelineHistory(timeline: number, text: string): readonly TimelineBranch[] {
  const branches: TimelineBranch[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const content = line.replace(/^#.*/, '').trim()
    if (content !== '') branches.push(parseBranch(timeline, content, index + 1))
  }
  for (const [index, { timeline: ancestor, endLsn }] of branches.entries()) {
    const before = branches[index - 1]
    if (before !== undefined && ancestor <= before.timeline)
      throw damaged(timeline, `timeline ${ancestor} follows ${before.timeline}`)
    if (before !== undefined && endLsn < before.endLsn) throw damaged(timeline, `timeline ${ancestor} ends before it begins`)
    if (ancestor >= timeline) throw damaged(timeline, `timeline ${ancestor} is no ancestor`)
  }
  return branches
}

/** The text that PostgreSQL reads, for `parseTimelineHistory`'s branches. */
export function formatTimelineHistory(branches: readonly TimelineBranch[]): string {
  return branches.map(({ timeline, endLsn, reason }) => `${timeline}\t${formatLsn(endLsn)}\t${reason}\n`).join('\n')
}

function parseBranch(timeline: number, content: string, lineNumber: number): TimelineBranch {
  const match = /^(\d{1,10})\s+([0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})(?:\s+(.*))?$/.exec(content)
  const ancestor = Number(match?.[1] ?? 0)
  if (match === null || ancestor < 1 || ancestor > 0xffffffff || content.length > LINE_CHARACTERS_MAX) {
    throw damaged(timeline, `line ${lineNumber} is "${content.slice(0, 80)}", expected a timeline, an LSN and a reason`)
  }
  return { timeline: ancestor, endLsn: parseLsn(match[2]!), reason: match[3] ?? '' }
}

function damaged(timeline: number, reason: string): Failure {
  return new Failure('WAL_INVALID', `cannot read the history of timeline ${timeline}: ${reason}`, {
    hint: `compare "${historyFileName(timeline)}" with that in the pg_wal directory of a server on this timeline`,
  })
}
