import { resolve } from 'node:path'
import { systemClock, type Clock } from '../clock.ts'
import type { Configuration } from '../config/configuration.ts'
import { Failure } from '../errors.ts'
import { ProgressDocuments, ProgressLine, type Progress } from './progress.ts'

/** Less than it takes until another node may take over the job. */
const ORPHAN_GRACE_MS = 10_000

/** What a verb gives: one JSON document, the same as text for people, and the exit status where it is not 0. */
export interface Answer {
  readonly json: unknown
  readonly text: string
  readonly exitStatus?: number
}

/** What every verb works with. */
export interface Context {
  readonly configPath: string
  /** Whether the command line or the environment names the configuration. */
  readonly configNamed: boolean
  readonly clock: Clock
  /** Aborts at Ctrl-C and SIGTERM, with an INTERRUPTED failure. */
  readonly signal: AbortSignal
  readonly progress: Progress
  /** For what the operator has to know beside the answer: goes to standard error. */
  readonly warn: (text: string) => void
  /** Reads the configuration. Throws CONFIG_UNREADABLE, CONFIG_INVALID. */
  configuration(): Promise<Configuration>
}

/** The arguments of a verb as they were given, to be parsed by it. */
export interface Given {
  readonly args: readonly string[]
  readonly options: Readonly<Record<string, unknown>>
}

export type Verb = (context: Context, given: Given) => Promise<Answer>

export interface VerbDefinition {
  readonly name: string
  readonly summary: string
  /** As commander writes them: `<needed>`, `[optional]`. */
  readonly args?: readonly (readonly [syntax: string, description: string])[]
  /** What is repeatable gives a list. */
  readonly options?: readonly (readonly [flags: string, description: string, repeatable?: 'repeatable'])[]
  /** Loaded only when it is called: `wal-get` runs once for each WAL file, and every module costs it time. */
  readonly load: () => Promise<{ readonly run: Verb }>
}

export function createContext(options: {
  configPath: string
  configNamed?: boolean
  signal: AbortSignal
  progress?: string
}): Context {
  const progress = progressOf(options.progress)
  const warn = (text: string) => progress.print(`warning: ${text}`)
  return {
    configPath: resolve(options.configPath),
    configNamed: options.configNamed ?? true,
    clock: systemClock,
    signal: options.signal,
    progress,
    warn,
    configuration: async () => {
      const { loadConfiguration } = await import('../config/configuration.ts')
      return await loadConfiguration(options.configPath)
    },
  }
}

function progressOf(form = 'text'): Progress {
  if (form === 'text') return new ProgressLine(process.stderr, systemClock)
  if (form === 'json') return new ProgressDocuments(process.stderr, systemClock)
  throw new Failure('ARGUMENTS_INVALID', `--progress is "${form}", wanted text or json`, { hint: 'leave it out for text' })
}

/** A signal that aborts when the operator or the system asks us to end. The verbs end cleanly; asking twice changes nothing. */
export function interruptible(): AbortSignal {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      const hint = 'nothing is lost: run it again'
      controller.abort(new Failure('INTERRUPTED', `interrupted by ${name}`, { hint }))
    })
  }
  endWithSupervisor(controller)
  return controller.signal
}

/** A job's command has a channel to its supervisor, which closes however that ends: the next attempt has to find the place free. */
function endWithSupervisor(controller: AbortController): void {
  if (process.send === undefined) return
  // Nobody may be left to read what is said, and that must not come before the good end.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)
  const end = () => {
    const hint = 'nothing is lost: it is begun again'
    controller.abort(new Failure('INTERRUPTED', 'the supervisor of this job has ended', { hint }))
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), ORPHAN_GRACE_MS).unref()
  }
  if (process.connected) process.once('disconnect', end)
  else end()
  // It keeps no command that is done.
  process.channel?.unref()
}

export function optionalText(given: Given, name: string): string | undefined {
  const value = given.options[name]
  return typeof value === 'string' ? value : undefined
}
