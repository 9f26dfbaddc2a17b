import type { Role } from '../../src/authority/principal.ts'

// Who may do what: docs/authority.md written down a second time, as data. Nothing here comes from src/authority/roles.ts, which is tested against it.

/** What a route is for. */
export type Deed =
  | 'open'
  | 'self'
  | 'read status'
  | 'read metrics'
  | 'read configuration'
  | 'read approvals'
  | 'read people'
  | 'read trail'
  | 'start work'
  | 'ask for a restore'
  | 'ask for an expiry'
  | 'decide'
  | 'change people'
  | 'declare'
  | 'review'
  | 'test a channel'
  | 'verify evidence'
  | 'read details'
  | 'certify'

const READING = ['read status', 'read metrics'] as const

export const MAY: Readonly<Record<Role, readonly Deed[]>> = {
  viewer: READING,
  operator: [
    ...READING,
    'read configuration',
    'read approvals',
    'start work',
    'ask for a restore',
    'declare',
    'test a channel',
    'verify evidence',
    'read details',
  ],
  approver: [...READING, 'read approvals', 'read people', 'decide', 'review', 'verify evidence', 'certify'],
  administrator: [
    ...READING,
    'read configuration',
    'read approvals',
    'read people',
    'ask for an expiry',
    'change people',
    'declare',
    'test a channel',
    'verify evidence',
    'certify',
  ],
  auditor: [
    ...READING,
    'read configuration',
    'read approvals',
    'read people',
    'read trail',
    'review',
    'verify evidence',
    'read details',
  ],
}

/**
 * What a grant for some facilities is good for: `some`, what holds one of them; `own`, what holds no other; `none`, nothing, as it is about the whole installation.
 */
export const REACH: Readonly<Record<Exclude<Deed, 'open' | 'self'>, 'some' | 'own' | 'none'>> = {
  'read status': 'some',
  'read metrics': 'none',
  'read configuration': 'none',
  'read approvals': 'some',
  'read people': 'none',
  'read trail': 'none',
  'start work': 'own',
  'ask for a restore': 'own',
  'ask for an expiry': 'own',
  decide: 'own',
  'change people': 'none',
  declare: 'none',
  review: 'none',
  'test a channel': 'none',
  'verify evidence': 'none',
  'read details': 'own',
  certify: 'own',
}

/** What only people do, whatever a token was granted. */
export const PEOPLES: readonly Deed[] = ['decide', 'change people', 'declare', 'review']

export interface RouteRule {
  readonly deed: Deed
  /** The answer to who may: its status, and its code where it is a refusal for another reason. */
  readonly answer: string
  /** To a person without a second factor, and to a token, of one's own things. */
  readonly withoutFactor?: string
  readonly token?: string
  /** It is about a component, by this. */
  readonly about?: 'component' | 'backup' | 'task' | 'approval'
  /** Whether it lists what belongs to components: exactly those are in the answer that may be seen. */
  readonly lists?: true
  readonly query?: string
  readonly body?: unknown
}

const read = (more: Partial<RouteRule> = {}): RouteRule => ({ deed: 'read status', answer: '200', ...more })
const notBuilt: RouteRule = { deed: 'read status', answer: '501 NOT_BUILT' }
const open: RouteRule = { deed: 'open', answer: '400 ARGUMENTS_INVALID', body: {} }
/** Of one's own account: not for tokens. */
const own = (answer: string, more: Partial<RouteRule> = {}): RouteRule => ({
  deed: 'self',
  answer,
  token: '403 FORBIDDEN',
  ...more,
})

const DR = '/api/v1/backup-dr'
const AUTH = '/api/v1/auth'

/** In the order in which they are asked: what ends a session comes last. */
export const ROUTES: Readonly<Record<string, RouteRule>> = {
  'GET /api/v1/live': { deed: 'open', answer: '200' },
  [`GET ${DR}/health`]: read({ lists: true }),
  [`GET ${DR}/status`]: read(),
  [`GET ${DR}/backups/status`]: read({ lists: true }),
  [`GET ${DR}/recovery-objectives`]: read({ lists: true }),
  [`GET ${DR}/schedules`]: read({ lists: true }),
  [`GET ${DR}/readiness`]: read({ lists: true }),
  [`GET ${DR}/readiness/history`]: read({ about: 'component', query: 'component=' }),
  [`GET ${DR}/monitor`]: read({ lists: true }),
  [`GET ${DR}/alarms`]: read(),
  [`GET ${DR}/facilities`]: read({ lists: true }),
  [`GET ${DR}/backups`]: read({ lists: true }),
  [`GET ${DR}/backups/{id}`]: read({ about: 'backup' }),
  [`GET ${DR}/recovery-objectives/history`]: read({ about: 'component', query: 'objective=rtoMinutes&component=' }),
  [`GET ${DR}/tasks`]: read({ lists: true }),
  [`GET ${DR}/tasks/{id}`]: read({ about: 'task' }),
  [`GET ${DR}/tasks/{id}/log`]: read({ about: 'task' }),
  [`GET ${DR}/tasks/{id}/events`]: read({ about: 'task' }),
  [`GET ${DR}/config`]: read({ deed: 'read configuration' }),
  [`GET ${DR}/storage`]: read({ deed: 'read metrics' }),
  [`GET ${DR}/storage/history`]: read({ deed: 'read metrics' }),
  'GET /metrics': read({ deed: 'read metrics' }),
  [`POST ${DR}/backups/files`]: notBuilt,
  [`POST ${DR}/failover`]: notBuilt,
  [`POST ${DR}/redundancy/setup`]: notBuilt,
  [`GET ${DR}/playbooks`]: notBuilt,
  [`GET ${DR}/playbooks/{scenario}`]: notBuilt,
  [`POST ${DR}/backups/database`]: { deed: 'start work', answer: '202', about: 'component', body: {} },
  [`POST ${DR}/test`]: { deed: 'start work', answer: '202', about: 'component', body: {} },
  [`POST ${DR}/backups/{id}/verify`]: { deed: 'start work', answer: '202', about: 'backup', body: {} },
  [`POST ${DR}/tasks/{id}/cancel`]: { deed: 'start work', answer: '200', about: 'task' },
  [`POST ${DR}/backups/cleanup`]: { deed: 'ask for an expiry', answer: '202', about: 'component', body: { dryRun: true } },
  [`POST ${DR}/backups/{id}/restore`]: { deed: 'ask for a restore', answer: '202', about: 'backup', body: {} },
  [`POST ${DR}/recovery`]: { deed: 'ask for a restore', answer: '202', about: 'component', body: {} },
  [`POST ${DR}/channels/{name}/test`]: { deed: 'test a channel', answer: '404 CHANNEL_UNKNOWN' },
  'GET /api/v1/evidence': read(),
  'GET /api/v1/evidence/verification': { deed: 'verify evidence', answer: '200' },
  'GET /api/v1/evidence/{sequence}': read({ answer: '404 EVIDENCE_UNKNOWN' }),
  'GET /api/v1/evidence/{sequence}/page': read({ answer: '404 EVIDENCE_UNKNOWN' }),
  'POST /api/v1/evidence/{sequence}/details': { deed: 'read details', answer: '404 EVIDENCE_UNKNOWN' },
  'POST /api/v1/evidence/{sequence}/certifications': {
    deed: 'certify',
    answer: '404 EVIDENCE_UNKNOWN',
    body: { decision: 'accepted', text: 'seen' },
  },
  'POST /api/v1/evidence/{sequence}/deviations': { deed: 'certify', answer: '404 EVIDENCE_UNKNOWN', body: { text: 'seen' } },
  'POST /api/v1/evidence/{sequence}/actions': {
    deed: 'certify',
    answer: '404 EVIDENCE_UNKNOWN',
    body: { owner: 'operations', due: '2030-01-01', text: 'more disks' },
  },
  'POST /api/v1/evidence/actions/{action}': { deed: 'certify', answer: '404 EVIDENCE_UNKNOWN', body: { state: 'done' } },
  'GET /api/v1/audit': { deed: 'read trail', answer: '200' },
  'GET /api/v1/audit/head': { deed: 'read trail', answer: '200' },
  'GET /api/v1/approvals': { deed: 'read approvals', answer: '200', lists: true },
  'GET /api/v1/approvals/{id}': { deed: 'read approvals', answer: '200', about: 'approval' },
  'GET /api/v1/approvals/{id}/challenge': { deed: 'decide', answer: '200', about: 'approval' },
  // With the right digest and a good factor of whoever asks, where they have one.
  'POST /api/v1/approvals/{id}/decision': { deed: 'decide', answer: '200', about: 'approval' },
  // Of somebody else's request.
  'POST /api/v1/approvals/{id}/revoke': { deed: 'read approvals', answer: '403 FORBIDDEN', about: 'approval' },
  'GET /api/v1/people': { deed: 'read people', answer: '200' },
  'POST /api/v1/people': { deed: 'change people', answer: '400 ARGUMENTS_INVALID', body: {} },
  'POST /api/v1/people/{id}/invitation': { deed: 'change people', answer: '404 PERSON_UNKNOWN' },
  'GET /api/v1/emergencies': read(),
  'GET /api/v1/emergencies/challenge': { deed: 'declare', answer: '200', query: 'reason=no-power' },
  'GET /api/v1/access-review': { deed: 'read people', answer: '200' },
  'POST /api/v1/access-review': { deed: 'change people', answer: '204', body: { text: 'all is well' } },
  'POST /api/v1/break-glass': { deed: 'change people', answer: '202' },
  'POST /api/v1/first-administrator': open,
  [`POST ${AUTH}/log-on`]: open,
  [`POST ${AUTH}/second-factor`]: open,
  [`POST ${AUTH}/second-factor/challenge`]: open,
  [`POST ${AUTH}/invitation`]: open,
  [`GET ${AUTH}/oidc/begin`]: { deed: 'open', answer: '502 IDENTITY_PROVIDER_UNREACHABLE' },
  [`GET ${AUTH}/oidc/callback`]: { deed: 'open', answer: '401 LOG_ON_REFUSED' },
  'GET /api/v1/docs/': { deed: 'self', answer: '200' },
  'GET /api/v1/docs/json': { deed: 'self', answer: '200' },
  'GET /api/v1/nothing': { deed: 'self', answer: '404 NOT_FOUND' },
  [`GET ${AUTH}/me`]: { deed: 'self', answer: '200' },
  [`GET ${AUTH}/factors`]: own('200'),
  [`POST ${AUTH}/factors/challenge`]: own('200'),
  [`POST ${AUTH}/factors/totp`]: own('403 FACTOR_NEEDED', { withoutFactor: '200', body: { label: 'phone' } }),
  [`POST ${AUTH}/factors/totp/finish`]: own('403 FACTOR_WRONG', { body: { ticket: 'x'.repeat(43), code: '000000' } }),
  [`POST ${AUTH}/factors/passkey`]: own('403 FACTOR_NEEDED', { withoutFactor: '200', body: { label: 'key' } }),
  [`POST ${AUTH}/factors/passkey/finish`]: own('400 ARGUMENTS_INVALID', { token: '400 ARGUMENTS_INVALID', body: {} }),
  [`POST ${AUTH}/factors/{id}/remove`]: own('400 ARGUMENTS_INVALID', { token: '400 ARGUMENTS_INVALID', body: {} }),
  [`GET ${AUTH}/sessions`]: own('200'),
  [`GET ${AUTH}/tokens`]: own('200'),
  [`POST ${AUTH}/tokens/challenge`]: own('400 ARGUMENTS_INVALID', { token: '400 ARGUMENTS_INVALID', body: {} }),
  [`POST ${AUTH}/tokens`]: own('400 ARGUMENTS_INVALID', { token: '400 ARGUMENTS_INVALID', body: {} }),
  [`DELETE ${AUTH}/tokens/{id}`]: own('404 NOT_FOUND'),
  // With no factor of theirs.
  'POST /api/v1/emergencies': { deed: 'declare', answer: '403 FACTOR_NEEDED', body: { reason: 'the server room has no power' } },
  // Of one that was declared just now, by somebody else.
  'POST /api/v1/emergencies/{id}/review': { deed: 'review', answer: '200', body: { text: 'it was right' } },
  'POST /api/v1/audit/acknowledge': { deed: 'review', answer: '200', body: { text: 'I have looked' } },
  [`POST ${AUTH}/password`]: own('400 ARGUMENTS_INVALID', { token: '400 ARGUMENTS_INVALID', body: {} }),
  [`POST ${AUTH}/log-off`]: own('204'),
  [`POST ${AUTH}/log-off-everywhere`]: own('401 UNAUTHENTICATED'),
}
