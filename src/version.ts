import { readFileSync } from 'node:fs'

/** The version of Resus, as package.json has it. */
export function resusVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version?: unknown }
  return typeof version === 'string' ? version : 'unknown'
}
