import { isDeepStrictEqual } from 'node:util'
import type { Json } from './canonical-json.ts'

// Which changes of a configuration take something away from protection. Whatever is not known to be harmless is taken for one that does.

/** A place of the configuration that becomes another. */
export interface Change {
  /** Like `components.his-db.keep.daily`. */
  readonly path: string
  /** Null where it was not there. */
  readonly before: Json
  /** Null where it is no more. */
  readonly after: Json
}

const TIERS = ['low', 'medium', 'high', 'critical']
const WORDS = /^(facilities\.[^.]+\.(name|lga|type)|components\.[^.]+\.(owner|sla|dependsOn))$/
/** The more, the more is kept, or promised. */
const MORE =
  /^components\.[^.]+\.keep\.(daily|weekly|monthly|pitrDays)$|(^|\.)objectives(\.scenarios\.[^.]+)?\.availabilityPercent$/
/** The less, the more is promised. */
const LESS = /(^|\.)objectives(\.scenarios\.[^.]+)?\.(rtoMinutes|rpoMinutes|maximumTolerableDowntimeMinutes)$/
/** What is new there protects more, or is only named. */
const NEW = /^(components|facilities)\.[^.]+$|(^|\.)objectives$|(^|\.)objectives\.scenarios(\.[^.]+)?$/
/** How it works, and not what it keeps. */
const WORK = /^components\.[^.]+\.(workers|compressionLevel)$/

/** The changes that weaken, or may; none when all of them only add. Both as `configurationDocument` gives them. */
export function weakenings(before: Json, after: Json): Change[] {
  return [...changesOf('', before, after)].filter((change) => !isHarmless(change))
}

function* changesOf(path: string, before: Json, after: Json): Generator<Change> {
  if (isDeepStrictEqual(before, after)) return
  if (!isObject(before) || !isObject(after)) {
    yield { path, before, after }
    return
  }
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    yield* changesOf(path === '' ? name : `${path}.${name}`, before[name] ?? null, after[name] ?? null)
  }
}

function isHarmless({ path, before, after }: Change): boolean {
  if (WORDS.test(path) || WORK.test(path)) return true
  if (NEW.test(path)) return before === null
  if (MORE.test(path)) return typeof after === 'number' && (before === null || (typeof before === 'number' && after > before))
  if (LESS.test(path)) return typeof after === 'number' && (before === null || (typeof before === 'number' && after < before))
  if (/^components\.[^.]+\.tier$/.test(path)) return TIERS.indexOf(after as string) > TIERS.indexOf(before as string)
  if (/^components\.[^.]+\.stream\.synchronous$/.test(path)) return before === false && after === true
  if (/^components\.[^.]+\.stream\.acknowledge$/.test(path)) return before === 'spool' && after === 'repository'
  return false
}

export function isObject(value: Json): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
