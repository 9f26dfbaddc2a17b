import { spawn } from 'node:child_process'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { optionalText, type Verb } from './verb.ts'

const MAIN = fileURLToPath(new URL('../server/main.ts', import.meta.url))

/** The control plane is a process of its own: it uses this command line as anybody would. */
export const run: Verb = async (context, given) => {
  const server = optionalText(given, 'server')
  const options = server === undefined ? [] : ['--server', resolve(server)]
  const child = spawn(process.execPath, [MAIN, '--config', context.configPath, ...options], {
    // The channel closes with us, however we end: nothing goes on that nobody sees.
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
  })
  // A terminal sends Ctrl-C to both of us, a supervisor's signal comes only here.
  context.signal.addEventListener('abort', () => child.kill('SIGTERM'), { once: true })
  const status = await new Promise<number>((settle, reject) => {
    child.once('error', reject)
    child.once('close', (code) => settle(code ?? 1))
  })
  return { json: { exitStatus: status }, text: '', exitStatus: status }
}
