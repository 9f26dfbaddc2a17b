import { isMap, isNode, isScalar, type Document, type LineCounter } from 'yaml'
import type { z } from 'zod'

type Path = readonly PropertyKey[]

/** The text of a configuration, parsed, with what is needed to say where in it something stands. */
export interface ConfigurationText {
  readonly file: string
  readonly text: string
  readonly document: Document
  readonly lines: LineCounter
}

const SHOWN_CHARACTERS = 60
const NEAR_EDITS_MAX = 3
/** What stands here may be a secret that somebody put in by mistake: it is never shown. */
const NEVER_SHOWN: ReadonlySet<PropertyKey> = new Set(['passphrase', 'connection', 'password', 'secret', 'clientSecret', 'url'])

/** Each mistake as `file:line:column: what: found this, wanted that`, in the order of the file. */
export function describeMistakes(source: ConfigurationText, issues: readonly z.core.$ZodIssue[], schema: unknown): string[] {
  const found = issues.flatMap((issue) => describeIssue(source, issue, schema))
  found.sort((left, right) => left.offset - right.offset)
  return found.map(({ offset, text }) => `${position(source, offset)}: ${text}`)
}

/** `file:line:column` of a character. */
export function position(source: Pick<ConfigurationText, 'file' | 'lines'>, offset: number): string {
  const { line, col } = source.lines.linePos(offset)
  return `${source.file}:${Math.max(line, 1)}:${Math.max(col, 1)}`
}

interface Mistake {
  readonly offset: number
  readonly text: string
}

function describeIssue(source: ConfigurationText, issue: z.core.$ZodIssue, schema: unknown): readonly Mistake[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      offset: keyOffset(source, issue.path, key),
      text: `${pathText([...issue.path, key])}: found an unknown name, ${suggestion(key, knownKeys(schema, issue.path))}`,
    }))
  }
  const name = pathText(issue.path)
  if (issue.code === 'invalid_key') {
    const key = String(issue.path.at(-1))
    const text = `${name}: found the name ${JSON.stringify(key)}, wanted ${issue.issues[0]?.message ?? 'another'}`
    return [{ offset: keyOffset(source, issue.path.slice(0, -1), key), text }]
  }
  return [
    {
      offset: valueOffset(source, issue.path),
      text: `${name}: found ${foundText(source, issue.path)}, wanted ${wantedText(issue)}`,
    },
  ]
}

function wantedText(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return TYPE_NAMES[issue.expected] ?? issue.expected
    case 'invalid_value':
      return oneOf(issue.values.map((value) => String(value)))
    case 'invalid_union':
      return 'options' in issue && Array.isArray(issue.options) ? oneOf(issue.options.map(String)) : issue.message
    case 'too_small':
      return issue.origin === 'string' ? 'some text' : (ownMessage(issue) ?? `at least ${issue.minimum}`)
    case 'too_big':
      return ownMessage(issue) ?? `at most ${issue.maximum}${issue.origin === 'string' ? ' characters' : ''}`
    default:
      return issue.message
  }
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  object: 'a block of names and values',
  record: 'a block of names and values',
  array: 'a list',
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
}

/** The schema's own words, where it has any: those of zod begin with a capital. */
function ownMessage(issue: z.core.$ZodIssue): string | undefined {
  return /^[a-z]/.test(issue.message) ? issue.message : undefined
}

function oneOf(values: readonly string[]): string {
  return values.length === 1 ? `"${values[0]}"` : `one of ${values.map((value) => `"${value}"`).join(', ')}`
}

function foundText(source: ConfigurationText, path: Path): string {
  const node = source.document.getIn(path, true)
  if (!isNode(node) || (isScalar(node) && node.value === null)) return 'nothing'
  if (path.some((step) => NEVER_SHOWN.has(step))) return 'a value (not shown)'
  if (!isScalar(node)) return isMap(node) ? 'a block' : 'a list'
  const text = JSON.stringify(node.value) ?? 'something'
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}...` : text
}

/** Where a value stands; where it is missing, the block that should have it. */
function valueOffset(source: ConfigurationText, path: Path): number {
  for (let length = path.length; length > 0; length -= 1) {
    const parent = source.document.getIn(path.slice(0, length - 1), true)
    const key = path[length - 1]
    const node = source.document.getIn(path.slice(0, length), true)
    if (isMap(parent) && isNode(node) && length < path.length) return keyOffset(source, path.slice(0, length - 1), String(key))
    if (isNode(node) && node.range) return node.range[0]
  }
  return 0
}

function keyOffset(source: ConfigurationText, path: Path, key: string): number {
  const parent = path.length === 0 ? source.document.contents : source.document.getIn(path, true)
  if (!isMap(parent)) return 0
  const pair = parent.items.find((item) => isScalar(item.key) && String(item.key.value) === key)
  return isScalar(pair?.key) ? (pair.key.range?.[0] ?? 0) : (parent.range?.[0] ?? 0)
}

function pathText(path: Path): string {
  if (path.length === 0) return 'the whole file'
  return path.map((step, index) => (typeof step === 'number' ? `[${step}]` : `${index === 0 ? '' : '.'}${String(step)}`)).join('')
}

function suggestion(name: string, known: readonly string[]): string {
  const near = nearest(name, known)
  return near === undefined ? `wanted ${oneOf(known)}` : `did you mean "${near}"?`
}

/** The known name that `name` is most likely a misspelling of. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const limit = Math.min(NEAR_EDITS_MAX, Math.ceil(name.length / 3))
  const rated = known.map((each) => ({ each, edits: editDistance(name.toLowerCase(), each.toLowerCase()) }))
  const best = rated.toSorted((left, right) => left.edits - right.edits)[0]
  return best !== undefined && best.edits <= limit ? best.each : undefined
}

/** Levenshtein's distance. */
function editDistance(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, index) => index)
  for (let at = 1; at <= left.length; at += 1) {
    const next = [at]
    for (let to = 1; to <= right.length; to += 1) {
      const substitute = row[to - 1]! + (left[at - 1] === right[to - 1] ? 0 : 1)
      next.push(Math.min(substitute, row[to]! + 1, next[to - 1]! + 1))
    }
    row = next
  }
  return row[right.length]!
}

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: JsonSchema | boolean
  readonly items?: JsonSchema
  readonly oneOf?: readonly JsonSchema[]
}

/** The names that a block at `path` may have, by the JSON Schema; those of all alternatives where there are some. */
function knownKeys(schema: unknown, path: Path): string[] {
  let level = [schema as JsonSchema]
  for (const step of path) {
    level = level.flatMap(alternatives).flatMap(({ properties, additionalProperties, items }) => {
      const below = typeof step === 'number' ? items : properties?.[String(step)]
      if (below !== undefined) return [below]
      return typeof additionalProperties === 'object' ? [additionalProperties] : []
    })
  }
  return [...new Set(level.flatMap(alternatives).flatMap(({ properties }) => Object.keys(properties ?? {})))]
}

function alternatives(schema: JsonSchema): readonly JsonSchema[] {
  return schema.oneOf ?? [schema]
}
