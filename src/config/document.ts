import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { LineCounter, parseDocument } from 'yaml'
import type { z } from 'zod'
import { Failure, systemErrorCode } from '../errors.ts'
import { describeMistakes, position, type ConfigurationText } from './mistakes.ts'

const CONFIGURATION_BYTES_MAX = 1024 * 1024
const MISTAKES_SHOWN = 10

/**
 * Reads a YAML file and checks it. Throws CONFIG_UNREADABLE, and CONFIG_INVALID with file, line, what was found and what was wanted for every mistake; no
 * value that may be a secret is shown.
 */
export async function readDocument<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
  jsonSchema: unknown,
): Promise<{ readonly source: ConfigurationText; readonly data: z.output<Schema> }> {
  const file = resolve(path)
  return parseText({ file, text: await readText(file) }, schema, jsonSchema)
}

/** The same of a text that is at hand. */
export function parseText<Schema extends z.ZodType>(
  { file, text }: { readonly file: string; readonly text: string },
  schema: Schema,
  jsonSchema: unknown,
): { readonly source: ConfigurationText; readonly data: z.output<Schema> } {
  const source = parseYaml(file, text)
  const parsed = schema.safeParse(toPlainData(source))
  if (!parsed.success) throw invalid(describeMistakes(source, parsed.error.issues, jsonSchema))
  return { source, data: parsed.data }
}

async function readText(file: string): Promise<string> {
  try {
    const text = await readFile(file, 'utf8')
    if (text.length <= CONFIGURATION_BYTES_MAX) return text
    throw invalid([`${file}: found ${text.length} characters, wanted ${CONFIGURATION_BYTES_MAX} at most`])
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (cause instanceof Failure || code === undefined) throw cause
    const hint =
      code === 'ENOENT'
        ? 'name it with --config or RESUS_CONFIG; "resus init" makes one'
        : 'may this user read it and pass its directories?'
    throw new Failure('CONFIG_UNREADABLE', `cannot read the configuration "${file}": ${code}`, { hint, cause })
  }
}

function parseYaml(file: string, text: string): ConfigurationText {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const source = { file, text, document, lines }
  if (document.errors.length === 0) return source
  throw invalid(document.errors.map((error) => `${position(source, error.pos[0])}: found no valid YAML: ${error.message}`))
}

function toPlainData(source: ConfigurationText): unknown {
  try {
    return source.document.toJS() as unknown
  } catch (cause) {
    // An alias without its anchor, or so many that they would fill the memory.
    throw invalid([`${source.file}:1:1: found no valid YAML: ${cause instanceof Error ? cause.message : String(cause)}`], cause)
  }
}

/** CONFIG_INVALID, with a list of mistakes. */
export function invalid(mistakes: readonly string[], cause?: unknown): Failure {
  const more = mistakes.length > MISTAKES_SHOWN ? [`... and ${mistakes.length - MISTAKES_SHOWN} more`] : []
  const list = [...mistakes.slice(0, MISTAKES_SHOWN), ...more].map((mistake) => `\n  ${mistake}`).join('')
  const secret = mistakes.some((mistake) => mistake.includes('passphrase: found a value'))
  const hint = secret
    ? 'put the passphrase into a file that only Resus may read, and write "file:/path/of/it" in its place'
    : '"resus config --schema" prints the JSON Schema, which an editor can check with'
  return new Failure('CONFIG_INVALID', `the configuration is not valid, nothing was started:${list}`, { hint, cause })
}
