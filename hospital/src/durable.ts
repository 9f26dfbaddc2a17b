import { mkdir, open, rename } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

/** Makes what was renamed, made or removed in a directory survive a loss of power. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Makes a directory, and what is missing above it, so that all of it survives a loss of power. */
export async function makeDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true })
  if (first === undefined) return
  const top = dirname(resolve(first))
  for (let at = dirname(resolve(path)); at.length >= top.length; at = dirname(at)) {
    await syncDirectory(at)
    if (at === top) return
  }
}

/** Writes a file that is there whole or not at all, whenever the power goes. */
export async function writeDurably(path: string, content: string): Promise<void> {
  const temporary = `${path}.tmp`
  const handle = await open(temporary, 'w', 0o600)
  try {
    await handle.writeFile(content)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(temporary, path)
  await syncDirectory(dirname(path))
}
