import { randomInt } from 'node:crypto'
import { chown, mkdir, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Failure } from '../errors.ts'
import { ordinaryUser } from '../postgres/ordinary-user.ts'
import { assertReachable, openTemporaryDirectory, reexecAsOrdinaryUser } from '../postgres/staged-runtime.ts'
import { runDemo } from './demo.ts'
import { assertUsable } from './demo-directory.ts'

// The process behind `resus demo`, which calls it with checked arguments. As root it goes on as an ordinary user.

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))
const FACILITIES = 4
const PATIENTS_DEFAULT = 2000
const PATIENTS_LEAST = 50

const given = parseArgs({
  options: {
    once: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    directory: { type: 'string' },
    patients: { type: 'string', default: String(PATIENTS_DEFAULT) },
    seed: { type: 'string', default: String(randomInt(1, 1_000_000)) },
  },
}).values

const controller = new AbortController()
process.exitCode = await main().catch(report)

async function main(): Promise<number> {
  const root = resolve(given.directory ?? join(await openTemporaryDirectory(), `resus-demo-${process.getuid?.() ?? 0}`))
  if (ordinaryUser() !== undefined) {
    await giveDirectory(root)
    const status = await reexecAsOrdinaryUser({ checkout: CHECKOUT, entry: import.meta.filename, args: argumentsFor(root) })
    if (status !== undefined) return status
  }
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, interrupt)
  const toStandardError = (text: string) => void process.stderr.write(`${text}\n`)
  const toStandardOutput = (text: string) => void process.stdout.write(`${text}\n`)
  return await runDemo({
    root,
    once: given.once,
    keep: given.keep,
    json: given.json,
    facilities: FACILITIES,
    patients: Math.max(PATIENTS_LEAST, Number(given.patients)),
    seed: Number(given.seed),
    signal: controller.signal,
    say: given.json ? toStandardError : toStandardOutput,
    print: toStandardOutput,
  })
}

/** The ordinary user that we go on as has to own the directory, and to be able to come to it. */
async function giveDirectory(root: string): Promise<void> {
  const user = ordinaryUser()
  if (user === undefined) return
  await assertUsable(root)
  await mkdir(dirname(root), { recursive: true })
  await assertReachable(dirname(root))
  await mkdir(root, { mode: 0o700 }).catch(() => undefined)
  const { uid } = await stat(root)
  if (uid !== process.getuid?.() && uid !== user.uid) {
    throw new Failure('DIRECTORY_IN_USE', `"${root}" belongs to another user (number ${uid})`, {
      hint: 'name another with --directory',
    })
  }
  await chown(root, user.uid, user.gid)
}

function argumentsFor(root: string): string[] {
  const flags = (['once', 'keep', 'json'] as const).filter((name) => given[name]).map((name) => `--${name}`)
  return [...flags, '--directory', root, '--patients', given.patients, '--seed', given.seed]
}

function interrupt(signal: NodeJS.Signals): void {
  controller.abort(new Failure('INTERRUPTED', `interrupted by ${signal}`, { hint: 'run it again: it cleans up what is left' }))
}

function report(error: unknown): number {
  const shown = controller.signal.aborted ? (controller.signal.reason as unknown) : error
  if (shown instanceof Failure) {
    process.stderr.write(`resus: ${shown.message}\n${shown.hint === undefined ? '' : `hint: ${shown.hint}\n`}`)
    return shown.exitStatus
  }
  process.stderr.write(`${shown instanceof Error ? shown.stack : String(shown)}\nthis is a bug of Resus\n`)
  return 1
}
