import { readdir, readFile, readlink } from 'node:fs/promises'
import { basename } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure, systemErrorCode } from '../../errors.ts'

// Processes of a scratch place that are not the server's any more: what code of the restored cluster has started and sent away. They cannot leave the
// namespaces of the server, and their mounts name the scratch directory; where there are none, their working directory does, unless they have left it.

const END_TIMEOUT_MS = 10_000
const POLL_MS = 20

/** The numbers of the processes that live in a scratch directory. On Linux only; those of other users are not seen, unless we are root. */
export async function processesIn(scratch: string): Promise<number[]> {
  const names = (await readdir('/proc').catch((): string[] => [])).filter((name) => /^\d+$/.test(name))
  const inside = await Promise.all(names.map(async (name) => livesIn(name, scratch)))
  return names.filter((_, index) => inside[index]).map(Number)
}

/** Ends them. Throws POSTGRES_FAILED when one does not end. */
export async function endProcessesIn(scratch: string): Promise<void> {
  const deadline = performance.now() + END_TIMEOUT_MS
  for (;;) {
    // Looked for again: one may have started another meanwhile.
    const found = await processesIn(scratch)
    if (found.length === 0) return
    if (performance.now() > deadline)
      throw new Failure('POSTGRES_FAILED', `processes ${found.join(', ')} of "${scratch}" do not end`, {
        hint: 'a process that survives SIGKILL waits in the kernel, usually for a disk',
      })
    for (const pid of found) kill(pid)
    await delay(POLL_MS)
  }
}

async function livesIn(name: string, scratch: string): Promise<boolean> {
  const at = await readlink(`/proc/${name}/cwd`).catch(() => '')
  if (at === scratch || at.startsWith(`${scratch}/`)) return true
  const mounts = await readFile(`/proc/${name}/mountinfo`, 'utf8').catch(() => '')
  // The name has 64 random bits: it is nobody else's.
  return mounts.includes(`/${basename(scratch)}/`)
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error
  }
}
