import { statSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { userInfo } from 'node:os'
import { join } from 'node:path'

/**
 * Keeps compiled code from one process to the next, in `.cache/resus` of the user's home: a command starts in a third of the time. What lies
 * there is run as code, so the home is the one that the system's accounts name, and nobody else may write to it; where there is none,
 * nothing is kept.
 */
export function keepCompiledCode(): void {
  try {
    const { homedir, uid } = userInfo()
    const home = statSync(homedir)
    if (home.uid === uid && (home.mode & 0o022) === 0) enableCompileCache(join(homedir, '.cache', 'resus'))
  } catch {
    // It only saves time: a user without an entry or a home does without.
  }
}
