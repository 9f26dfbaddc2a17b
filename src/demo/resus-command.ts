import { fileURLToPath } from 'node:url'
import { BackgroundProcess } from './background-process.ts'
import { runCommand } from './command.ts'
import type { DemoDirectory } from './demo-directory.ts'

// The demo protects its hospital with the command line that everybody has.

const MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url))

/** Runs a verb to its end and gives its JSON document. Throws POSTGRES_FAILED with what the verb said, when its status is none of these. */
export async function runResus<T>(
  directory: DemoDirectory,
  verb: string,
  args: readonly string[],
  signal: AbortSignal,
  statuses: readonly number[] = [0],
): Promise<T> {
  const { stdout } = await runCommand({
    name: 'resus',
    args: [MAIN, verb, ...args, '--config', directory.configuration, '--json'],
    logFile: directory.commandLog,
    signal,
    statuses,
  })
  return JSON.parse(stdout) as T
}

/** `resus stream`, running. */
export function startReceiver(directory: DemoDirectory, component: string): BackgroundProcess {
  const args = [MAIN, 'stream', component, '--config', directory.configuration]
  return BackgroundProcess.start({ name: 'resus stream', args, logFile: directory.streamLog })
}
