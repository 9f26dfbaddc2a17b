import { Failure } from '../../errors.ts'
import { optionalText, type Given } from '../verb.ts'

/** How far set-up goes. */
export const INIT_MODES = ['comprehensive', 'backup-only', 'dr-only', 'validate-only'] as const
export type InitMode = (typeof INIT_MODES)[number]

/** What the command line of `init` says. */
export interface InitOptions {
  /** Undefined when it names none. */
  readonly mode: InitMode | undefined
  readonly yes: boolean
  readonly sqlOnly: boolean
  readonly sameDevice: boolean
  readonly newPassword: boolean
  readonly sheetWithPassphrase: boolean
  readonly synchronous: boolean | undefined
  readonly cluster: string | undefined
  readonly system: string | undefined
  readonly component: string | undefined
  readonly tier: string | undefined
  readonly storage: string | undefined
  readonly state: string | undefined
  readonly passphraseFile: string | undefined
  readonly connectionFile: string | undefined
  readonly superuserConnection: string | undefined
}

/** Throws ARGUMENTS_INVALID for more than one mode. */
export function readInitOptions(given: Given): InitOptions {
  const on = (name: string) => given.options[name] === true
  const modes = INIT_MODES.filter((mode) => on(mode.replace(/-only/, 'Only')))
  if (modes.length > 1) {
    throw new Failure('ARGUMENTS_INVALID', `${modes.map((mode) => `--${mode}`).join(' and ')} were given`, { hint: 'choose one' })
  }
  const { synchronous } = given.options
  const text = (name: string) => optionalText(given, name)
  return {
    mode: modes[0],
    yes: on('yes'),
    sqlOnly: on('sqlOnly'),
    sameDevice: on('sameDevice'),
    newPassword: on('newPassword'),
    sheetWithPassphrase: on('sheetWithPassphrase'),
    synchronous: typeof synchronous === 'boolean' ? synchronous : undefined,
    cluster: text('cluster'),
    system: text('system'),
    component: text('component'),
    tier: text('tier'),
    storage: text('storage'),
    state: text('state'),
    passphraseFile: text('passphraseFile'),
    connectionFile: text('connectionFile'),
    superuserConnection: text('superuserConnection'),
  }
}

/** Whether more was asked for than to make the repository of a configuration that is there. */
export function asksForSetup({ mode, yes, sqlOnly, newPassword, sheetWithPassphrase }: InitOptions): boolean {
  return mode !== undefined || yes || sqlOnly || newPassword || sheetWithPassphrase
}
