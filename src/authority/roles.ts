import { ROLES, type Principal, type Role } from './principal.ts'

/**
 * How far a grant for some facilities goes: `read` to components that hold one of them; `act` to those that hold no other; `all` nowhere, it takes a grant for all facilities; `self` to one's own
 * things, with any grant or none.
 */
type Reach = 'read' | 'act' | 'all' | 'self'

interface ActionRule {
  readonly roles: readonly Role[]
  readonly reach: Reach
}

const OPERATE = ['operator'] as const

/** All that can be asked, by API and by command line. Each route and each verb names one. */
export const ACTIONS = {
  self: { roles: ROLES, reach: 'self' },
  'status.read': { roles: ROLES, reach: 'read' },
  'task.read': { roles: ROLES, reach: 'read' },
  'metrics.read': { roles: ROLES, reach: 'all' },
  'configuration.read': { roles: ['operator', 'administrator', 'auditor'], reach: 'all' },
  'backup.start': { roles: OPERATE, reach: 'act' },
  'verify.start': { roles: OPERATE, reach: 'act' },
  'expire.ask': { roles: ['administrator'], reach: 'act' },
  'restore.ask': { roles: OPERATE, reach: 'act' },
  'task.cancel': { roles: OPERATE, reach: 'act' },
  'channel.test': { roles: ['operator', 'administrator'], reach: 'all' },
  'approval.read': { roles: ['operator', 'approver', 'administrator', 'auditor'], reach: 'read' },
  'approval.decide': { roles: ['approver'], reach: 'act' },
  'people.read': { roles: ['approver', 'administrator', 'auditor'], reach: 'all' },
  'people.ask': { roles: ['administrator'], reach: 'all' },
  'review.record': { roles: ['administrator'], reach: 'all' },
  'emergency.declare': { roles: ['operator', 'administrator'], reach: 'all' },
  'emergency.review': { roles: ['approver', 'auditor'], reach: 'all' },
  'evidence.verify': { roles: ['operator', 'approver', 'administrator', 'auditor'], reach: 'all' },
  'evidence.details': { roles: ['operator', 'auditor'], reach: 'act' },
  // Management's word: whoever decides on others' requests, or answers for the installation.
  'evidence.certify': { roles: ['approver', 'administrator'], reach: 'act' },
  'audit.acknowledge': { roles: ['approver', 'auditor'], reach: 'all' },
  'audit.read': { roles: ['auditor'], reach: 'all' },
} as const satisfies Record<string, ActionRule>

export type Action = keyof typeof ACTIONS

/** Whether anything at all of this kind may be asked by them; of what, `reaches` says. */
export function mayAsk(principal: Principal, action: Action): boolean {
  if (principal.kind === 'bootstrap') return true
  const { roles, reach }: ActionRule = ACTIONS[action]
  if (reach === 'self') return true
  return principal.grants.some(({ role, facilities }) => roles.includes(role) && (reach !== 'all' || facilities === null))
}

/** Whether they may do so with what holds these facilities; what holds none belongs to the whole installation. */
export function reaches(principal: Principal, action: Action, facilities: readonly string[]): boolean {
  if (principal.kind === 'bootstrap') return true
  const { roles, reach }: ActionRule = ACTIONS[action]
  if (reach === 'self') return true
  const grants = principal.grants.filter(({ role }) => roles.includes(role))
  if (grants.some((grant) => grant.facilities === null)) return true
  if (reach === 'all' || facilities.length === 0) return false
  const own = new Set(grants.flatMap((grant) => grant.facilities ?? []))
  return reach === 'read' ? facilities.some((each) => own.has(each)) : facilities.every((each) => own.has(each))
}
