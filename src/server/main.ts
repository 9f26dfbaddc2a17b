import { parseArgs } from 'node:util'
import { systemClock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { serve } from './serve.ts'

// The process behind `resus serve`, which calls it with checked arguments.

const { config, server } = parseArgs({
  options: { config: { type: 'string', default: 'resus.yaml' }, server: { type: 'string' } },
}).values

/** Longest that open handles may keep the process once all has ended. */
const EXIT_GRACE_MS = 5000
const controller = new AbortController()
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => controller.abort(new Failure('INTERRUPTED', `interrupted by ${name}`)))
}
process.on('disconnect', () => controller.abort(new Failure('INTERRUPTED', 'the process that started it has ended')))
const report = (text: string) => void process.stderr.write(`${new Date().toISOString()} ${text}\n`)

try {
  await serve({
    configPath: config,
    serverFile: server,
    databaseUrl: process.env.RESUS_DATABASE_URL,
    clock: systemClock,
    signal: controller.signal,
    report,
    onReady: ({ url, tokenPath, isNewToken }) => {
      process.stdout.write(`resus serve: ${url}/api/v1/docs/\n`)
      if (tokenPath === null) process.stdout.write('people log on\n')
      else process.stdout.write(`the administrator token is in "${tokenPath}"${isNewToken ? ' (made just now)' : ''}\n`)
    },
  })
} catch (error) {
  if (!controller.signal.aborted) process.exitCode = told(error)
} finally {
  // The channel to whoever started us would keep this process.
  if (process.connected) process.disconnect()
  setTimeout(() => process.exit(), EXIT_GRACE_MS).unref()
}

function told(error: unknown): number {
  if (!(error instanceof Failure)) {
    process.stderr.write(
      `${error instanceof Error ? error.stack : String(error)}\nthis is a bug of Resus: please report it with the text above\n`,
    )
    return 1
  }
  const { message, hint, exitStatus } = error
  process.stderr.write(`resus: ${message}\n${hint === undefined ? '' : `hint: ${hint}\n`}`)
  return exitStatus
}
