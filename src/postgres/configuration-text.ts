import { dirname, resolve } from 'node:path'
import { Failure } from '../errors.ts'

// postgresql.conf and all that it includes, as one text (guc-file.l, guc.c: ParseConfigFp, ParseConfigDirectory).

/** PostgreSQL's own limit (CONF_FILE_MAX_DEPTH). */
const DEPTH_MAX = 10
const FILES_MAX = 1000
const TEXT_BYTES_MAX = 64 * 1024 * 1024

/** How the files of a configuration are read, by absolute path; undefined for what is not there. */
export interface ConfigurationFiles {
  /** The file's bytes as Latin-1, so that whatever its encoding is, it can be written back as it was. */
  readFile(path: string): string | undefined
  /** Names of what is in a directory. */
  listDirectory(path: string): readonly string[] | undefined
}

/** What PostgreSQL would stumble over at its next start, too. */
export interface ConfigurationProblem {
  readonly path: string
  readonly problem: string
}

/** A configuration whose includes are resolved. */
export interface ExpandedText {
  readonly text: string
  /** Whether it depends on where its files lie: on absolute paths, or on settings that name places. */
  readonly isPlaced: boolean
  readonly problems: readonly ConfigurationProblem[]
}

/**
 * Settings that say where the cluster's own files are. A copy of the cluster finds them in its data directory, and must not write over the
 * process id of the one that it came from.
 */
const PLACES: ReadonlySet<string> = new Set(['data_directory', 'config_file', 'hba_file', 'ident_file', 'external_pid_file'])
const INCLUDES: ReadonlySet<string> = new Set(['include', 'include_if_exists', 'include_dir'])

/** Puts what a configuration file includes in the place of each include, and comments settings that name places out. Throws CONFIGURATION_UNREADABLE. */
export function expandConfiguration(files: ConfigurationFiles, path: string): ExpandedText {
  const expansion = new Expansion(files)
  const text = expansion.open(path, undefined, expandLines)
  return { text: text ?? '', isPlaced: expansion.isPlaced, problems: expansion.problems }
}

/** The state of one expansion: which files are open, what was found, and how much it may be. */
export class Expansion {
  readonly #files: ConfigurationFiles
  readonly #stack: string[] = []
  #opened = 0
  #bytes = 0
  isPlaced = false
  readonly problems: ConfigurationProblem[] = []

  constructor(files: ConfigurationFiles) {
    this.#files = files
  }

  /** The file that is being read. */
  get current(): string {
    return this.#stack.at(-1)!
  }

  /** The absolute path behind a name in the current file. A name has the file's own bytes, a path is UTF-8. */
  resolve(name: string): string {
    const path = Buffer.from(name, 'latin1').toString('utf8')
    if (path.startsWith('/')) this.isPlaced = true
    return resolve(dirname(this.current), path)
  }

  /** Reads a file and expands it; undefined, and a problem that `from` has, when it is not there or not to be entered. */
  open(
    path: string,
    from: string | undefined,
    expand: (expansion: Expansion, text: string) => string,
    optional = false,
  ): string | undefined {
    const depth = this.#stack.length
    if (this.#stack.includes(path)) return this.#problem(from ?? path, `"${path}" includes itself`)
    if (depth > DEPTH_MAX) return this.#problem(from ?? path, `"${path}" is included more than ${DEPTH_MAX} files deep`)
    const text = this.#files.readFile(path)
    if (text === undefined) return optional ? undefined : this.#problem(from ?? path, `"${path}" is not there`)
    this.#opened += 1
    this.#bytes += text.length
    if (this.#opened > FILES_MAX) throw unlimited(path, `more than ${FILES_MAX} files`)
    if (this.#bytes > TEXT_BYTES_MAX) throw unlimited(path, `more than ${TEXT_BYTES_MAX / 1024 ** 2} MiB`)
    this.#stack.push(path)
    try {
      return expand(this, text)
    } finally {
      this.#stack.pop()
    }
  }

  /** Paths of the `.conf` files of a directory, in PostgreSQL's order; undefined, and a problem, when it is not there. */
  confFiles(directory: string): string[] | undefined {
    const names = this.#files.listDirectory(directory)
    if (names === undefined) return this.#problem(this.current, `the directory "${directory}" is not there`)
    const wanted = names.filter((name) => name.endsWith('.conf') && !name.startsWith('.'))
    return wanted
      .toSorted((left, right) => Buffer.compare(Buffer.from(left), Buffer.from(right)))
      .map((name) => resolve(directory, name))
  }

  #problem(path: string, problem: string): undefined {
    if (!this.problems.some((each) => each.path === path && each.problem === problem)) this.problems.push({ path, problem })
    return undefined
  }
}

function unlimited(path: string, limit: string): Failure {
  return new Failure(
    'CONFIGURATION_UNREADABLE',
    `the configuration of the server has ${limit}; the limit was reached at "${path}"`,
    {
      hint: 'does a directory of "include_dir" hold what does not belong there, or do files include each other over and over?',
    },
  )
}

function expandLines(expansion: Expansion, text: string): string {
  return splitLines(text)
    .map((line) => expandLine(expansion, line))
    .join('')
}

/** Lines, each with the line feed that the last one may lack. */
export function splitLines(text: string): string[] {
  const lines = text.split('\n').map((line) => `${line}\n`)
  if (text === '' || text.endsWith('\n')) lines.pop()
  return lines
}

const SETTING =
  /^[ \t\r\f\v]*([A-Za-z_\u0080-\u00ff][\w$.\u0080-\u00ff]*)[ \t\r\f\v]*=?[ \t\r\f\v]*('(?:[^'\\]|\\.|'')*'|[A-Za-z_\u0080-\u00ff][-\w$.:/\u0080-\u00ff]*)?/

function expandLine(expansion: Expansion, line: string): string {
  const [, written = '', value] = SETTING.exec(line) ?? []
  const name = written.toLowerCase()
  // Empty, it names no place.
  if (PLACES.has(name) && (value === undefined || unquote(value) !== '')) {
    expansion.isPlaced = true
    return commented(line)
  }
  if (!INCLUDES.has(name) || value === undefined) return line
  const path = expansion.resolve(unquote(value))
  const from = expansion.current
  const paths = name === 'include_dir' ? expansion.confFiles(path) : [path]
  const included = (paths ?? []).map((each) => {
    const text = expansion.open(each, from, expandLines, name === 'include_if_exists')
    return text === undefined ? '' : framed(each, text)
  })
  return commented(line) + included.join('')
}

/** The value that the last line about a setting gives it; undefined when there is none. */
export function findSetting(text: string, name: string): string | undefined {
  const lines = splitLines(text).map((line) => SETTING.exec(line))
  const value = lines.findLast((match) => match?.[1]?.toLowerCase() === name)?.[2]
  return value === undefined ? undefined : Buffer.from(unquote(value), 'latin1').toString('utf8')
}

/** A line that does not count any more. */
export function commented(line: string): string {
  return `# Resus: ${line.trimStart()}`
}

/** The text of an included file, in the place where it was included. */
export function framed(path: string, text: string): string {
  const name = Buffer.from(JSON.stringify(path)).toString('latin1')
  return `# Resus: begin of ${name}\n${text}# Resus: end of ${name}\n`
}

const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }

/** The value of a quoted or bare word (guc-file.l: DeescapeQuotedString). */
function unquote(value: string): string {
  if (!value.startsWith("'")) return value
  return value.slice(1, -1).replaceAll(/''|\\([0-7]{1,3}|.)/g, (_, escaped: string | undefined) => {
    if (escaped === undefined) return "'"
    if (/^[0-7]/.test(escaped)) return String.fromCharCode(Number.parseInt(escaped, 8) & 0xff)
    return ESCAPES[escaped] ?? escaped
  })
}
