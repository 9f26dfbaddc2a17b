import { fileURLToPath } from 'node:url'
import { BackgroundProcess } from './background-process.ts'
import { runCommand } from './command.ts'
import type { DemoDirectory } from './demo-directory.ts'

// The demo protects its hospital with the command line that everybody has.

const MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url))

/** Runs a verb to its end and gives its JSON document. Throws POSTGRES_FAILED with what the verb said, when its status is not 0. */
export async function runResus<T>(
  directory: DemoDirectory,
  verb: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<T> {
  return (await run([0], { directory, verb, args, signal })) as T
}

/** The same of a verb that judges: status 1 says that something was not verified, and the document what. */
export async function judgeByResus(
  directory: DemoDirectory,
  verb: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<unknown> {
  return await run([0, 1], { directory, verb, args, signal })
}

async function run(
  statuses: readonly number[],
  { directory, verb, args, signal }: { directory: DemoDirectory; verb: string; args: readonly string[]; signal: AbortSignal },
): Promise<unknown> {
  const { stdout } = await runCommand({
    name: 'resus',
    args: [MAIN, verb, ...args, '--config', directory.configuration, '--json'],
    logFile: directory.commandLog,
    signal,
    statuses,
  })
  return JSON.parse(stdout) as unknown
}

/** `resus stream`, running. */
export function startReceiver(directory: DemoDirectory, component: string): BackgroundProcess {
  const args = [MAIN, 'stream', component, '--config', directory.configuration]
  return BackgroundProcess.start({ name: 'resus stream', args, logFile: directory.streamLog })
}
