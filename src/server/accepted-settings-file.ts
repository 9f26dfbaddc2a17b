import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { acceptedSettingsSchema, type AcceptedSettings } from '../authority/accepted-settings.ts'
import { isObject } from '../authority/weakening.ts'
import { parseSecretReference } from '../config/secret-reference.ts'
import { replaceFile } from '../protect/postgres/durable-file.ts'

// <state>/accepted-server.json: what a node goes by while no repository answers. A secret in it is left out: what of it somebody edits meanwhile is found when one answers.

const FILE = 'accepted-server.json'

/** Undefined where there is none that can be read. */
export async function readAcceptedSettings(state: string): Promise<AcceptedSettings | undefined> {
  const text = await readFile(join(state, FILE), 'utf8').catch(() => '')
  try {
    return acceptedSettingsSchema.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}

/** Unless it is there already. */
export async function writeAcceptedSettings(state: string, { document, ...rest }: AcceptedSettings): Promise<void> {
  const { deadMan, ...others } = document
  const isKept = deadMan !== undefined && !hasSecret(deadMan)
  const text = `${JSON.stringify({ ...rest, document: isKept ? document : others }, undefined, 2)}\n`
  const path = join(state, FILE)
  if ((await readFile(path, 'utf8').catch(() => '')) !== text) await replaceFile(path, text)
}

/** Whether an outside watch is written as its address, which who has it can keep quiet. */
export function hasSecret(deadMan: AcceptedSettings['document'][string]): boolean {
  return isObject(deadMan) && typeof deadMan['url'] === 'string' && parseSecretReference(deadMan['url'], '/') === undefined
}
