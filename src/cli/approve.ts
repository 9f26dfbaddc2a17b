import type { z } from 'zod'
import { approvalPageSchema, approvalSchema, type ApprovalDocument } from '../api/authority-schemas.ts'
import { meSchema } from '../api/auth-schemas.ts'
import { Failure } from '../errors.ts'
import { describeApproval, summaryOf } from './approval-text.ts'
import { ControlPlaneClient } from './control-plane-client.ts'
import { formatTable, formatTime } from './output.ts'
import { listAll } from './pages.ts'
import { plainText } from './plain-text.ts'
import { Prompter } from './prompter.ts'
import { people } from './user.ts'
import { optionalText, type Answer, type Context, type Given, type Verb } from './verb.ts'

const HEAD = ['REQUEST', 'WHAT', 'ASKED BY', 'UNTIL'] as const
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

type Me = z.infer<typeof meSchema>

/** What takes a second person: what waits, and one's own decision on it. */
export const run: Verb = async (context, given) => {
  const { refuse, yes, revoke } = given.options
  if ([refuse, yes, revoke].filter((each) => each === true).length > 1) {
    throw new Failure('ARGUMENTS_INVALID', 'one of --yes, --refuse and --revoke', { hint: 'leave the others out' })
  }
  const [id] = given.args
  if (id !== undefined && !ID.test(id)) {
    throw new Failure('ARGUMENTS_INVALID', `"${plainText(id)}" is no id of a request`, { hint: '"resus approve" lists them' })
  }
  const client = await ControlPlaneClient.ofPerson(given, context.signal)
  if (id === undefined) return await list(client)
  if (revoke === true) return ended(await client.ask(`POST /approvals/${id}/revoke`, approvalSchema))
  return await look(client, { id, context, given })
}

async function list(client: ControlPlaneClient): Promise<Answer> {
  const waiting = await listAll(client, '/approvals?state=pending', approvalPageSchema)
  const nameOf = await namesOf(client, waiting)
  const rows = waiting.map((each) => [each.id, summaryOf(each, nameOf), plainText(each.askedBy), formatTime(each.expiresAt)])
  return { json: waiting, text: rows.length === 0 ? 'nothing waits for a second person' : formatTable(HEAD, rows) }
}

/** Shows all of it first; only who may decide is asked. */
async function look(
  client: ControlPlaneClient,
  { id, context, given }: { readonly id: string; readonly context: Context; readonly given: Given },
): Promise<Answer> {
  const approval = await client.ask(`GET /approvals/${id}`, approvalSchema)
  const shown = describeApproval(approval, await namesOf(client, [approval]))
  const isTold = given.options.yes === true || given.options.refuse === true
  const why = isTold ? undefined : whyNot(approval, await client.ask('GET /auth/me', meSchema))
  if (why !== undefined) return { json: approval, text: `${shown}\n${why}` }
  using prompter = new Prompter(context.signal)
  prompter.show(`${shown}\n`)
  return await decide(client, { approval, prompter, given })
}

/** The server says the same of who decides all the same; a code need not be used up for it. */
function whyNot({ state, askedBy }: ApprovalDocument, { name, grants }: Me): string | undefined {
  if (state !== 'pending') return `it is ${state}: there is nothing to decide`
  if (name === askedBy) return 'you have asked for it: another approver decides ("--revoke" takes it back)'
  return grants.some(({ role }) => role === 'approver') ? undefined : 'an approver decides on it'
}

async function decide(
  client: ControlPlaneClient,
  { approval, prompter, given }: { readonly approval: ApprovalDocument; readonly prompter: Prompter; readonly given: Given },
): Promise<Answer> {
  const { id, digest } = approval
  const decision = await decisionOf(given, prompter)
  const asked = given.options.yes === true ? '' : undefined
  const text = optionalText(given, 'reason') ?? asked ?? (await prompter.ask('reason (may be left empty)'))
  const reason = text === '' ? null : text
  const question = `to ${decision} ${digest.slice(0, 8)}…, a new code of the authenticator (six digits)`
  const decided = await prompter.withCode(question, async (code) =>
    client.ask(`POST /approvals/${id}/decision`, approvalSchema, { decision, digest, reason, factor: { kind: 'totp', code } }),
  )
  return ended(decided)
}

async function decisionOf({ options }: Given, prompter: Prompter): Promise<'approve' | 'refuse'> {
  if (options.yes === true) return 'approve'
  if (options.refuse === true) return 'refuse'
  // Whole words: no key that was pressed too often decides.
  const answer = (await prompter.ask('approve or refuse')).toLowerCase()
  if (answer === 'approve' || answer === 'refuse') return answer
  throw new Failure('ARGUMENTS_INVALID', 'that was neither "approve" nor "refuse"', { hint: 'nothing was decided' })
}

function ended(approval: ApprovalDocument): Answer {
  const { id, state, outcome } = approval
  const { task, code, message } = (outcome ?? {}) as {
    readonly task?: unknown
    readonly code?: unknown
    readonly message?: unknown
  }
  const says = {
    pending: 'it still waits',
    approved: 'it is approved; whoever asked for it on a host runs it there, with --approval',
    refused: 'it is refused',
    revoked: 'it is taken back',
    expired: 'it has expired',
    used: 'it is approved, and done',
    failed: `it is approved, and could not be done: ${plainText(String(message))} (${plainText(String(code))})`,
  }[state]
  const next = typeof task === 'string' ? `\nit runs: "resus tasks ${plainText(task)} --follow"` : ''
  return { json: approval, text: `${id}: ${says}${next}`, exitStatus: state === 'failed' ? 1 : 0 }
}

/** Who the people are that requests name; whoever may not read the list sees their ids. */
async function namesOf(
  client: ControlPlaneClient,
  approvals: readonly ApprovalDocument[],
): Promise<((id: string) => string) | undefined> {
  if (!approvals.some(({ operation }) => operation === 'people')) return undefined
  try {
    const names = new Map((await people(client)).map(({ id, name }) => [id, name]))
    return (id) => names.get(id) ?? id
  } catch (error) {
    if (error instanceof Failure && error.code === 'FORBIDDEN') return undefined
    throw error
  }
}
