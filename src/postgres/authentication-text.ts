import { commented, Expansion, framed, splitLines, type ConfigurationFiles, type ExpandedText } from './configuration-text.ts'

// pg_hba.conf and pg_ident.conf and all that they name, as one text (hba.c: tokenize_auth_file, next_token, next_field_expand).

/** From here on the files may include others; before, `include` is a word like any. */
const INCLUDES_FROM = 16
const INCLUDES: ReadonlySet<string> = new Set(['include', 'include_if_exists', 'include_dir'])

/** Puts the names of each `@file` in its place, and from PostgreSQL 16 what is included in the place of each include. Throws CONFIGURATION_UNREADABLE. */
export function expandAuthentication(files: ConfigurationFiles, path: string, { major }: { major: number }): ExpandedText {
  const expansion = new Expansion(files)
  const expand = (at: Expansion, text: string): string =>
    joinContinued(splitLines(text))
      .map((line) => expandLine(at, line, major >= INCLUDES_FROM ? expand : undefined))
      .join('')
  const text = expansion.open(path, undefined, expand)
  return { text: text ?? '', isPlaced: expansion.isPlaced, problems: expansion.problems }
}

/** A line that ends in a backslash goes on with the next one. */
function joinContinued(lines: readonly string[]): string[] {
  const joined: string[] = []
  let open = ''
  for (const line of lines) {
    open += line
    if (/\\\r?\n$/.test(line)) continue
    joined.push(open)
    open = ''
  }
  return open === '' ? joined : [...joined, open]
}

interface Token {
  /** As it is written, with its quotes. */
  readonly written: string
  readonly text: string
  /** A token that begins with a quote is a name and nothing else. */
  readonly isQuoted: boolean
  readonly start: number
  readonly end: number
  /** The next token belongs to the same field. */
  readonly hasComma: boolean
}

function expandLine(expansion: Expansion, line: string, include: ((at: Expansion, text: string) => string) | undefined): string {
  const content = line.replaceAll(/\\\r?\n/g, '').replace(/\r?\n$/, '')
  const tokens = readTokens(content)
  const [first, second] = tokens
  if (include !== undefined && tokens.length === 2 && !first!.hasComma && INCLUDES.has(first!.text)) {
    return expandInclude(expansion, line, { name: first!.text, path: second!.text, include })
  }
  if (!tokens.some(isReference)) return line
  let text = ''
  let done = 0
  for (const token of tokens) {
    text += content.slice(done, token.start) + (isReference(token) ? expandReference(expansion, token) : token.written)
    done = token.end
  }
  return `${text}${content.slice(done)}\n`
}

function expandInclude(
  expansion: Expansion,
  line: string,
  directive: { name: string; path: string; include: (at: Expansion, text: string) => string },
): string {
  const { name, include } = directive
  const path = expansion.resolve(directive.path)
  const from = expansion.current
  const paths = name === 'include_dir' ? (expansion.confFiles(path) ?? []) : [path]
  const included = paths.map((each) => {
    const text = expansion.open(each, from, include, name === 'include_if_exists')
    return text === undefined ? '' : framed(each, text)
  })
  return (
    line
      .split(/(?<=\n)/)
      .map(commented)
      .join('') + included.join('')
  )
}

function isReference(token: Token): boolean {
  return !token.isQuoted && token.text.length > 1 && token.text.startsWith('@')
}

/** The names in the file of `@file`. One that is not there or empty becomes a name that nobody has: the line must not lose a field. */
function expandReference(expansion: Expansion, token: Token): string {
  const path = expansion.resolve(token.text.slice(1))
  const list = expansion.open(path, expansion.current, expandList)
  return list === undefined || list === '' ? `"${token.text.replaceAll('"', '""')}"` : list
}

function expandList(expansion: Expansion, text: string): string {
  const names: string[] = []
  for (const line of joinContinued(splitLines(text))) {
    const tokens = readTokens(line.replaceAll(/\\\r?\n/g, '').replace(/\r?\n$/, ''))
    for (const token of tokens) names.push(isReference(token) ? expandReference(expansion, token) : token.written)
  }
  return names.join(',')
}

function readTokens(line: string): Token[] {
  const tokens: Token[] = []
  let at = 0
  for (;;) {
    while (at < line.length && /[ \t\r,]/.test(line[at]!)) at += 1
    if (at >= line.length || line[at] === '#') return tokens
    const token = readToken(line, at)
    tokens.push(token)
    at = token.end
  }
}

function readToken(line: string, start: number): Token {
  let text = ''
  let inQuotes = false
  let at = start
  for (; at < line.length; at++) {
    const character = line[at]!
    if (!inQuotes && /[ \t\r,#]/.test(character)) break
    if (character !== '"') text += character
    else if (inQuotes && line[at + 1] === '"') {
      text += '"'
      at += 1
    } else inQuotes = !inQuotes
  }
  const isQuoted = line[start] === '"'
  return { written: line.slice(start, at), text, isQuoted, start, end: at, hasComma: line[at] === ',' }
}
