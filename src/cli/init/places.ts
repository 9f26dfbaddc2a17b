import { basename, dirname, join, resolve } from 'node:path'
import type { InitOptions } from './options.ts'

/** Where a set-up writes when nothing says otherwise. */
export const DEFAULT_CONFIG = '/etc/resus/resus.yaml'
const DEFAULT_STATE = '/var/lib/resus/state'

/** Absolute paths. */
export interface Places {
  readonly state: string
  readonly passphrasePath: string
  readonly connectionPath: string
}

/** Where everything goes, beside the configuration unless something else is said. */
export function placesOf(configPath: string, options: Pick<InitOptions, 'state' | 'passphraseFile' | 'connectionFile'>): Places {
  const directory = dirname(configPath)
  // A second system in the same directory has files of its own.
  const name = basename(configPath).replace(/\.ya?ml$/, '')
  const own = name === 'resus' ? '' : `${name}.`
  const state = directory.startsWith('/etc/') ? `${DEFAULT_STATE}${own && `-${name}`}` : join(directory, `${own}state`)
  return {
    state: resolve(options.state ?? state),
    passphrasePath: resolve(options.passphraseFile ?? join(directory, `${own}passphrase`)),
    connectionPath: resolve(options.connectionFile ?? join(directory, `${own}connection`)),
  }
}
