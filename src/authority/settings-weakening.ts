import { isAbsolute, relative } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { Json } from './canonical-json.ts'
import { isObject, type Change } from './weakening.ts'

// Which changes of server.yaml take something away from protection, or give somebody more. Whatever is not known to be harmless is taken for one that does.

type Document = Readonly<Record<string, Json>>

/** What is of one host, or says only when and where: the state directory and its content are whoever's the host is (docs/security.md). */
const OF_THE_HOST: ReadonlySet<string> = new Set(['state', 'node', 'digest'])
const LISTENING = ['listen', 'tls', 'plainHttp'] as const

/** What stays as it was. */
export interface HeldBack {
  /** What may be in force: what is wanted, but for these changes. */
  readonly document: Document
  readonly changes: readonly Change[]
}

/**
 * Holds what weakens back. Both with absolute paths; `isPlain`: whether others on the network read what is sent to such a server. A part is held back as a whole: a list of
 * directories, a channel, the identity provider.
 */
export function holdBack(before: Document, wanted: Document, isPlain: (document: Document) => boolean): HeldBack {
  const changes: Change[] = []
  const document: Record<string, Json> = { ...wanted }
  const hold = (name: string) => {
    changes.push({ path: name, before: before[name] ?? null, after: wanted[name] ?? null })
    put(document, name, before[name])
  }
  for (const name of new Set([...Object.keys(before), ...Object.keys(wanted)])) {
    if (OF_THE_HOST.has(name) || name === 'channels' || LISTENING.some((each) => each === name)) continue
    if (!isHarmless(name, before[name] ?? null, wanted[name] ?? null)) hold(name)
  }
  if (isPlain(wanted) && !(isPlain(before) && hostOf(wanted) === hostOf(before))) LISTENING.forEach(hold)
  const channels = holdChannels(asObject(before['channels']), asObject(wanted['channels']), changes)
  if (channels !== undefined) document['channels'] = channels
  return { document, changes: changes.filter((change) => !isDeepStrictEqual(change.before, change.after)) }
}

function hostOf({ listen }: Document): string {
  return typeof listen === 'string' ? listen.replace(/:\d+$/, '') : ''
}

function put(document: Record<string, Json>, name: string, value: Json | undefined): void {
  if (value === undefined) delete document[name]
  else document[name] = value
}

function isHarmless(name: string, before: Json, after: Json): boolean {
  if (isDeepStrictEqual(before, after)) return true
  switch (name) {
    case 'restoreRoots':
      return textsOf(after).every((root) => textsOf(before).some((known) => isBelow(known, root)))
    case 'identityProvider':
      return after === null || (before !== null && grantsNoMore(asObject(before), asObject(after)))
    case 'deadMan':
      return before === null || isSooner(asObject(before), asObject(after))
    case 'auditSyslog':
      return before === null
    default:
      return false
  }
}

function isBelow(root: string, path: string): boolean {
  const way = relative(root, path)
  return way === '' || (way !== '..' && !way.startsWith('../') && !isAbsolute(way))
}

/** Groups lose roles, and nothing else changes. */
function grantsNoMore({ groups: before, ...of }: Document, { groups: after, ...to }: Document): boolean {
  if (!isDeepStrictEqual(of, to)) return false
  return Object.entries(asObject(after)).every(([role, names]) => {
    const known = textsOf(asObject(before)[role])
    return textsOf(names).every((name) => known.includes(name))
  })
}

function isSooner({ everySeconds: before, ...of }: Document, { everySeconds: after, ...to }: Document): boolean {
  return isDeepStrictEqual(of, to) && typeof before === 'number' && typeof after === 'number' && after < before
}

/** Undefined where all of them may be as they are wanted. */
function holdChannels(before: Document, wanted: Document, changes: Change[]): Document | undefined {
  const held = Object.keys(before).filter((name) => !tellsAsMuch(asObject(before[name]), wanted[name] ?? null))
  for (const name of held) changes.push({ path: `channels.${name}`, before: before[name] ?? null, after: wanted[name] ?? null })
  if (held.length === 0) return undefined
  return { ...wanted, ...Object.fromEntries(held.map((name) => [name, before[name] ?? null])) }
}

/** The same people, or more, of the same things, or more. */
function tellsAsMuch(before: Document, wanted: Json): boolean {
  if (!isObject(wanted)) return false
  const { severities, to, digest, withoutStore, ...of } = before
  const { severities: wantedSeverities, to: wantedTo, digest: wantedDigest, withoutStore: wantedWithout, ...as } = wanted
  return (
    isDeepStrictEqual(of, as) &&
    holdsAll(wantedSeverities, severities) &&
    holdsAll(wantedTo, to) &&
    (digest !== true || wantedDigest === true) &&
    (withoutStore !== true || wantedWithout === true)
  )
}

function holdsAll(all: Json | undefined, some: Json | undefined): boolean {
  const known = textsOf(all)
  return textsOf(some).every((each) => known.includes(each))
}

/** One alone is a list of one. */
function textsOf(value: Json | undefined): readonly string[] {
  return [value].flat().filter((each) => typeof each === 'string')
}

function asObject(value: Json | undefined): Document {
  return value !== undefined && isObject(value) ? value : {}
}
