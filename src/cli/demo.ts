import { spawn } from 'node:child_process'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure } from '../errors.ts'
import { optionalText, type Given, type Verb } from './verb.ts'

const MAIN = fileURLToPath(new URL('../demo/main.ts', import.meta.url))

/** The demo is a process of its own: it starts servers, kills them, and uses this command line as anybody would. */
export const run: Verb = async (context, given) => {
  const json = given.options.json === true
  const child = spawn(process.execPath, [MAIN, ...demoArguments(given)], {
    stdio: ['inherit', json ? 'pipe' : 'inherit', 'inherit'],
  })
  const output: Buffer[] = []
  child.stdout?.on('data', (piece: Buffer) => output.push(piece))
  // A terminal sends Ctrl-C to both of us, a supervisor's signal comes only here.
  context.signal.addEventListener('abort', () => child.kill('SIGTERM'), { once: true })
  const status = await new Promise<number>((settle, reject) => {
    child.once('error', reject)
    child.once('close', (code) => settle(code ?? 1))
  })
  return { json: json ? parseReport(Buffer.concat(output).toString('utf8')) : null, text: '', exitStatus: status }
}

function demoArguments(given: Given): string[] {
  const flags = (['once', 'keep', 'json'] as const).filter((name) => given.options[name] === true).map((name) => `--${name}`)
  const directory = optionalText(given, 'directory')
  const values = (['patients', 'seed'] as const).flatMap((name) => {
    const value = optionalText(given, name)
    if (value === undefined) return []
    if (/^\d{1,10}$/.test(value)) return [`--${name}`, value]
    throw new Failure('ARGUMENTS_INVALID', `--${name} is "${value}", wanted a whole number`, { hint: 'for instance 2000' })
  })
  return [...flags, ...(directory === undefined ? [] : ['--directory', resolve(directory)]), ...values]
}

function parseReport(text: string): unknown {
  return text.trim() === '' ? null : (JSON.parse(text) as unknown)
}
