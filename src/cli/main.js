import { statSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { userInfo } from 'node:os'
import { join } from 'node:path'

// Where the process begins. Plain JavaScript, because the compiler that strips types takes a tenth of a second to load, and PostgreSQL starts us for
// each file of WAL; what is imported in the ordinary way is compiled before the first line here runs.

keepCompiledCode()
await import('./program.ts')

/**
 * Keeps compiled code from one process to the next, in `.cache/resus` of the user's home: a command starts in a third of the time. What lies
 * there is run as code, so the home is the one that the system's accounts name, and nobody else may write to it; where there is none,
 * nothing is kept.
 */
function keepCompiledCode() {
  // Node has begun already, where whoever called us says.
  if (process.env.NODE_COMPILE_CACHE !== undefined) return
  try {
    const { homedir, uid } = userInfo()
    const home = statSync(homedir)
    if (home.uid !== uid || (home.mode & 0o022) !== 0) return
    const directory = join(homedir, '.cache', 'resus')
    enableCompileCache(directory)
    // For threads, and for the processes that we start.
    process.env.NODE_COMPILE_CACHE = directory
  } catch {
    // It only saves time: a user without an entry or a home does without.
  }
}
