import { isAbsolute, resolve } from 'node:path'
import { Failure } from '../../errors.ts'
import { damaged } from '../../repository/sealed-object.ts'
import type { TreeEntry } from '../../repository/tree.ts'

/** `--tablespace-map OLD=NEW`: OLD is the directory that the tablespace had, or its oid. */
export interface TablespaceMapping {
  readonly old: string
  readonly new: string
}

/** A tablespace of a backup and the directory that it is restored into. */
export interface TablespacePlace {
  readonly oid: string
  /** Where it was. */
  readonly source: string
  /** Where it goes: the same, unless it is mapped. */
  readonly path: string
}

/** Reads `OLD=NEW`; an equals sign in OLD is written `\=`, as PostgreSQL's own tools have it. Throws ARGUMENTS_INVALID. */
export function parseTablespaceMapping(text: string): TablespaceMapping {
  const match = /^((?:[^\\=]|\\.)+)=(.+)$/s.exec(text)
  if (match !== null) return { old: unescape(match[1]!), new: unescape(match[2]!) }
  throw new Failure('ARGUMENTS_INVALID', `--tablespace-map is "${text}", wanted OLD=NEW`, {
    hint: 'OLD is the path or the oid of a tablespace, NEW an absolute path: 16385=/data/scans',
  })
}

/** Says where each tablespace goes, and makes sure that the places do not lie in each other. Throws ARGUMENTS_INVALID. */
export function placeTablespaces(options: {
  tablespaces: readonly { readonly oid: string; readonly path: string }[]
  mappings: readonly TablespaceMapping[]
  /** The restored data directory, absolute. */
  directory: string
}): TablespacePlace[] {
  const { tablespaces, mappings, directory } = options
  for (const mapping of mappings) assertMappable(mapping, tablespaces)
  const places = tablespaces.map(({ oid, path }): TablespacePlace => {
    const named = mappings.filter((mapping) => isOf(mapping, { oid, path }))
    if (named.length > 1) throw invalid(`tablespace ${oid} ("${path}") is mapped ${named.length} times`)
    const [mapping] = named
    return { oid, source: path, path: mapping === undefined ? path : resolve(mapping.new) }
  })
  for (const [index, place] of places.entries()) {
    const what = `tablespace ${place.oid} would lie in "${place.path}"`
    if (holds(directory, place.path)) throw invalid(`${what}, which is in the restored data directory "${directory}"`)
    if (holds(place.path, directory)) throw invalid(`${what}, which the restored data directory "${directory}" is in`)
    const other = places.slice(0, index).find(({ path }) => holds(path, place.path) || holds(place.path, path))
    if (other !== undefined) throw invalid(`${what}, and tablespace ${other.oid} in "${other.path}": they would share files`)
  }
  return places
}

/**
 * The entries of a backup with the links of its tablespaces leading to where those go now. Throws OBJECT_DAMAGED for any other link: a backup has none, and
 * files would be written through it.
 */
export async function* linkTablespaces(
  entries: AsyncIterable<TreeEntry>,
  tablespaces: readonly TablespacePlace[],
): AsyncGenerator<TreeEntry> {
  const targets = new Map(tablespaces.map(({ oid, path }) => [`pg_tblspc/${oid}`, path]))
  for await (const entry of entries) {
    if (entry.kind !== 'link') {
      yield entry
      continue
    }
    const target = targets.get(entry.path)
    if (target === undefined)
      throw damaged(entry.path, `the backup has it as a link to "${entry.target}", and no tablespace of that name`)
    yield { ...entry, target }
  }
}

/**
 * PostgreSQL's `tablespace_map` with other directories: recovery makes its links from it. Lines are `oid path`; a line feed, carriage return
 * or backslash in a path has a backslash before it.
 */
export function rewriteTablespaceMap(text: string, places: readonly TablespacePlace[]): string {
  // Nothing that was written by PostgreSQL is rewritten without need.
  if (places.every(({ source, path }) => source === path)) return text
  const lines = [...text.matchAll(/(\d+) ((?:[^\\\n\r]|\\[^])*)[\n\r]+/g)]
  return lines
    .map(([, oid, escaped]) => {
      const path = places.find((place) => place.oid === oid)?.path
      return `${oid} ${path === undefined ? escaped : path.replaceAll(/[\n\r\\]/g, String.raw`\$&`)}\n`
    })
    .join('')
}

function assertMappable(mapping: TablespaceMapping, tablespaces: readonly { oid: string; path: string }[]): void {
  if (!isAbsolute(mapping.new)) throw invalid(`a tablespace is mapped to "${mapping.new}", which is no absolute path`)
  if (tablespaces.some((tablespace) => isOf(mapping, tablespace))) return
  const known = tablespaces.map(({ oid, path }) => `${oid} ("${path}")`).join(', ')
  throw invalid(
    `the backup has no tablespace "${mapping.old}": ${known === '' ? 'it has none at all' : `it has ${known}`}`,
    'name a tablespace by its oid or by its directory',
  )
}

function isOf(mapping: TablespaceMapping, tablespace: { oid: string; path: string }): boolean {
  return mapping.old === tablespace.oid || (isAbsolute(mapping.old) && resolve(mapping.old) === resolve(tablespace.path))
}

/** Whether a path is that of a directory, or lies in it. */
export function holds(directory: string, path: string): boolean {
  const outer = resolve(directory)
  const inner = resolve(path)
  return inner === outer || inner.startsWith(outer.endsWith('/') ? outer : `${outer}/`)
}

function unescape(text: string): string {
  return text.replaceAll(/\\([^])/g, '$1')
}

function invalid(what: string, hint = 'map each tablespace to a directory of its own: --tablespace-map OID=/new/place'): Failure {
  return new Failure('ARGUMENTS_INVALID', what, { hint })
}
