import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/**
 * What tells a process from a later one that got its number: on Linux the boot and the tick in which it was started, elsewhere what `ps`
 * says. Undefined when there is no such process; a zombie counts as none.
 */
export async function processStart(pid: number): Promise<string | undefined> {
  if (process.platform !== 'linux') return await startByPs(pid)
  try {
    // `pid (name) state ppid ...`; the name may hold spaces and brackets. The start is the 22nd field.
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    return `${boot} ${fields[19]}`
  } catch {
    return undefined
  }
}

async function startByPs(pid: number): Promise<string | undefined> {
  try {
    const { stdout } = await execute('ps', ['-o', 'lstart=', '-p', String(pid)])
    return stdout.trim() || undefined
  } catch {
    return undefined
  }
}
