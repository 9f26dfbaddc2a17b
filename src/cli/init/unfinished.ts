import { readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { syncDirectory } from '../../protect/postgres/durable-file.ts'
import { INIT_MODES, type InitMode } from './options.ts'
import { writeOnce } from './write-once.ts'

// Beside a configuration that a set-up has written and not yet led to its end: a bare "resus init" goes on from it.

function place(configPath: string): string {
  return `${configPath}.unfinished`
}

export async function noteUnfinished(configPath: string, mode: InitMode): Promise<void> {
  await writeOnce(place(configPath), `${mode}\n`)
}

/** The mode of the set-up that did not end; undefined when none is open. */
export async function readUnfinished(configPath: string): Promise<InitMode | undefined> {
  const text = await readFile(place(configPath), 'utf8').catch(() => '')
  return INIT_MODES.find((mode) => mode === text.trim())
}

export async function clearUnfinished(configPath: string): Promise<void> {
  await rm(place(configPath), { force: true })
  await syncDirectory(dirname(configPath)).catch(() => undefined)
}
