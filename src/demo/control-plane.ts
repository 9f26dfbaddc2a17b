import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BackgroundProcess } from './background-process.ts'
import { noteProcess, type DemoDirectory } from './demo-directory.ts'

const MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url))
const ANSWERS = /^resus serve: (\S+)$/m

/** `resus serve`, protecting the demo's hospital. */
export interface ControlPlane extends AsyncDisposable {
  readonly process: BackgroundProcess
  /** Of the page that shows the API. */
  readonly url: string
  readonly token: string
}

/** Starts it on a free port of loopback; everything of it is in the demo's directory. */
export async function startControlPlane(directory: DemoDirectory, signal: AbortSignal): Promise<ControlPlane> {
  const state = join(directory.root, 'control-plane')
  const settings = `# Written by "resus demo".\nlisten: 127.0.0.1:0\nstate: control-plane\nrestoreRoots: [restores]\n`
  await writeFile(join(directory.root, 'server.yaml'), settings, { mode: 0o600 })
  const running = BackgroundProcess.start({
    name: 'resus serve',
    args: [MAIN, 'serve', '--config', directory.configuration],
    logFile: directory.controlPlaneLog,
  })
  await noteProcess(directory, 'control-plane', running.pid)
  try {
    const url = await running.ready(async () => ANSWERS.exec(await readFile(directory.controlPlaneLog, 'utf8'))?.[1], signal)
    const token = (await readFile(join(state, 'administrator-token'), 'utf8')).trim()
    return { process: running, url, token, [Symbol.asyncDispose]: async () => running.close() }
  } catch (error) {
    await running.close()
    throw error
  }
}
