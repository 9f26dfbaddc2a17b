import type { Configuration } from '../../config/configuration.ts'
import { newestBackupId } from '../../repository/backups.ts'
import type { Repository } from '../../repository/repository.ts'
import { newestProvenBackup } from '../../repository/verdicts.ts'
import { run as runBackup } from '../backup.ts'
import { formatDuration, formatTime } from '../output.ts'
import type { Context } from '../verb.ts'
import { proveByRestore } from '../verify-by-restore.ts'

interface Told {
  done(step: string): void
}

/** What a proof gave, as the verdict has it. */
export interface Proven {
  readonly component: string
  readonly backup: string
  readonly verdict: string
  readonly expires: string
  readonly checks: readonly { readonly name: string; readonly verdict: string; readonly found: string }[]
}

/** A full backup, unless there is one: false when pages of it are corrupt. */
export async function takeFirstBackup(run: {
  context: Context
  repository: Repository
  component: string
  steps: Told
}): Promise<boolean> {
  const { context, repository, component, steps } = run
  const newest = await newestBackupId(repository, component)
  if (newest !== undefined) {
    steps.done(`there already: backup ${newest} of "${component}"`)
    return true
  }
  const answer = await runBackup(context, { args: [component], options: {} })
  const { id, corruptPages } = answer.json as { id: string; corruptPages: readonly unknown[] }
  steps.done(`took the first backup of "${component}": ${id}${corruptPages.length > 0 ? ', WITH CORRUPT PAGES' : ''}`)
  return answer.exitStatus === undefined || answer.exitStatus === 0
}

/** Restores the newest backup with all WAL behind it, as "resus verify --by-restore latest" does; not when that holds already, unless `again`. */
export async function proveNewest(run: {
  context: Context
  configuration: Configuration
  repository: Repository
  component: string
  steps: Told
  again: boolean
}): Promise<Proven> {
  const { context, configuration, repository, component, steps, again } = run
  const proof = again ? undefined : await newestProvenBackup(repository, component, context.clock.now())
  if (proof?.current === true && proof.backup === (await newestBackupId(repository, component))) {
    const { backup, verdict, expires, checks } = proof.verdict
    steps.done(`there already: backup ${backup} of "${component}" is proven until ${formatTime(expires)}`)
    return { component, backup, verdict, expires, checks }
  }
  const given = { args: ['latest'], options: { component } }
  const answer = await proveByRestore({ context, given, configuration, repository })
  const proven = answer.json as Omit<Proven, 'component'> & { seconds: number; kept: boolean }
  const verdict = proven.kept ? proven.verdict : 'not proven'
  const until = verdict === 'verified' ? `proven by a restore until ${formatTime(proven.expires)}` : verdict.toUpperCase()
  steps.done(
    `backup ${proven.backup} of "${component}": ${until}; restore and checks took ${formatDuration(1000 * proven.seconds)}`,
  )
  return { component, backup: proven.backup, verdict, expires: proven.expires, checks: proven.checks }
}
