import { createHash } from 'node:crypto'
import { z } from 'zod'
import { restorePlace } from './restore-place.ts'
import { TURNS } from '../recovery/drill/drill-target.ts'
import { BACKUP_TYPES } from '../repository/backups.ts'

// What can be asked for, and which of it never runs twice at once.

const nothing = z.strictObject({})
const backupId = z.string().regex(/^[0-9A-Za-z-]{1,64}$/, 'id of a backup')

/** Of the directory that a restore makes. */
export const restoreNameSchema = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,100}$/, 'a name of lower-case letters, digits, ".", "_" and "-"')

/** Where to: at most one of the moments; none is the latest. */
export const targetSchema = z
  .strictObject({
    backup: backupId.optional().describe('begin with this backup; alone: to its end'),
    time: z.iso.datetime({ offset: true, local: false }).optional(),
    lsn: z
      .string()
      .regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i, 'an LSN like 16/B374D848')
      .optional(),
    xid: z
      .string()
      .regex(/^\d{1,20}$/, 'a transaction id')
      .optional(),
    name: z
      .string()
      .min(1)
      .max(63)
      .regex(/^[^\p{C}-][^\p{C}]*$/u, 'the name of a restore point')
      .optional(),
    timeline: z.int().min(1).max(0xffffffff).optional(),
    exclusive: z.boolean().optional(),
  })
  .refine(({ time, lsn, xid, name }) => [time, lsn, xid, name].filter((each) => each !== undefined).length <= 1, {
    message: 'one of time, lsn, xid and name',
  })
export type Target = z.infer<typeof targetSchema>

/** The parameters of each kind, as they are kept with the task. */
export const PARAMETERS = {
  backup: z.strictObject({ type: z.enum(BACKUP_TYPES).optional() }),
  verify: z.strictObject({ backup: backupId.optional() }),
  prove: z.strictObject({ backup: z.union([z.literal('latest'), backupId]).optional() }),
  drill: z.strictObject({ target: z.enum(TURNS).optional() }),
  expire: z.strictObject({ dryRun: z.boolean().optional() }),
  check: nothing,
  baseline: nothing,
  // A name below restoreRoots of the node that restores, and never a path.
  restore: z.strictObject({ target: targetSchema, name: restoreNameSchema }),
} as const

export type TaskKind = keyof typeof PARAMETERS
export const TASK_KINDS = Object.keys(PARAMETERS) as readonly TaskKind[]

/** What never runs twice at once for one component. A long proof holds up no backup. */
export const LANES = {
  backup: 'backup',
  verify: 'proof',
  prove: 'proof',
  drill: 'proof',
  baseline: 'baseline',
  restore: 'restore',
  expire: 'upkeep',
  check: 'upkeep',
} as const satisfies Record<TaskKind, string>

/** The queue of a component's lane. Names of systems may have any letters, names of queues may not. */
export function queueName({ system, component, lane }: { system: string; component: string | null; lane: string }): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([system, component]))
    .digest('hex')
  return `${lane}-${digest.slice(0, 32)}`
}

/** The command line of a task: `resus <these>`. Every value was checked by PARAMETERS; none can be taken for an option. */
export async function commandOf(
  kind: TaskKind,
  {
    id,
    component,
    parameters,
    restoreRoots,
    clearance,
    requestedBy,
  }: {
    id: string
    component: string
    parameters: unknown
    restoreRoots: readonly string[]
    clearance: string | null
    requestedBy: string
  },
): Promise<string[]> {
  switch (kind) {
    case 'backup': {
      const { type } = PARAMETERS.backup.parse(parameters)
      return ['backup', component, ...(type === undefined ? [] : ['--type', type])]
    }
    case 'verify': {
      const { backup } = PARAMETERS.verify.parse(parameters)
      return ['verify', ...(backup === undefined ? [] : [backup]), '--component', component]
    }
    case 'prove': {
      const { backup = 'latest' } = PARAMETERS.prove.parse(parameters)
      return ['verify', backup, '--by-restore', '--component', component]
    }
    case 'drill': {
      const { target } = PARAMETERS.drill.parse(parameters)
      // One word: a name may begin with a hyphen.
      return ['drill', component, `--started-by=${requestedBy}`, ...(target === undefined ? [] : ['--target', target])]
    }
    case 'expire': {
      const { dryRun = false } = PARAMETERS.expire.parse(parameters)
      return ['expire', component, ...(dryRun ? ['--dry-run'] : [])]
    }
    case 'baseline':
      return ['baseline', component]
    case 'check':
      return ['check', component]
    case 'restore': {
      const { target, name } = PARAMETERS.restore.parse(parameters)
      // One that was whole when its node died is reported by the next attempt.
      const place = await restorePlace(restoreRoots, name)
      return ['restore', component, '--to', place, '--request', id, ...targetOptions(target), ...clearanceOptions(clearance)]
    }
    default:
      return kind satisfies never
  }
}

/** `approval:<id>` as `--approval <id>`. */
function clearanceOptions(clearance: string | null): string[] {
  const [, kind, id] = /^(approval|emergency):([0-9a-f-]{36})$/.exec(clearance ?? '') ?? []
  return kind === undefined || id === undefined ? [] : [`--${kind}`, id]
}

function targetOptions({ backup, time, lsn, xid, name, timeline, exclusive }: Target): string[] {
  const options: (readonly [string, string | undefined])[] = [
    ['--backup', backup],
    ['--target-time', time],
    ['--target-lsn', lsn],
    ['--target-xid', xid],
    ['--target-name', name],
    ['--target-timeline', timeline === undefined ? undefined : String(timeline)],
  ]
  const given = options.flatMap(([flag, value]) => (value === undefined ? [] : [flag, value]))
  return exclusive === true ? [...given, '--exclusive'] : given
}
