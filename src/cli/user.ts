import { invitationSchema, peopleChangedSchema, peopleSchema, type PersonDocument } from '../api/authority-schemas.ts'
import { Failure } from '../errors.ts'
import { waitsText } from './approval-text.ts'
import { ControlPlaneClient } from './control-plane-client.ts'
import { formatGrants, parseGrants } from './grants-text.ts'
import { formatTable, formatTime } from './output.ts'
import { listAll } from './pages.ts'
import { plainText } from './plain-text.ts'
import { optionalText, type Answer, type Given, type Verb } from './verb.ts'

const HEAD = ['NAME', 'DISPLAYED', 'GRANTS', 'STATE', 'FACTORS', 'LAST SEEN'] as const
const CHANGES = ['grant', 'disable', 'enable', 'reset'] as const

/** People: who they are, and what is to become of them. Most of it takes a second person. */
export const run: Verb = async (context, given) => {
  const [what, name] = given.args
  const client = await ControlPlaneClient.ofPerson(given, context.signal)
  if (what === 'list') return list(await people(client), context.clock.now())
  const change = CHANGES.find((each) => each === what)
  if (what !== 'add' && what !== 'invite' && change === undefined) {
    throw new Failure('ARGUMENTS_INVALID', `"${what}" is nothing that can be done with people`, {
      hint: 'list, add, grant, disable, enable, reset or invite',
    })
  }
  if (name === undefined) throw new Failure('ARGUMENTS_INVALID', `${what} whom?`, { hint: `resus user ${what} NAME` })
  if (what === 'add') return await add(client, given, name)
  // What is wrong with the arguments is said before anybody is asked.
  const more = change === 'grant' ? { grants: grantsOf(given) } : {}
  const { id } = await personNamed(client, name)
  if (change === undefined) return await invite(client, { id, name })
  return await ask(client, { change: change === 'grant' ? 'grants' : change, person: id, ...more }, name)
}

function list(all: readonly PersonDocument[], nowMs: number): Answer {
  const rows = all.map((person) => [
    plainText(person.name),
    plainText(person.displayName),
    formatGrants(person.grants),
    stateOf(person, nowMs),
    String(person.factors),
    person.lastSeenAt === null ? '-' : formatTime(person.lastSeenAt),
  ])
  return { json: all, text: formatTable(HEAD, rows, ['FACTORS']) }
}

function stateOf({ state, lockedUntil, hasPassword }: PersonDocument, nowMs: number): string {
  if (state === 'disabled') return state
  if (lockedUntil !== null && Date.parse(lockedUntil) > nowMs) return `locked out until ${formatTime(lockedUntil)}`
  return hasPassword ? 'active' : 'no password'
}

async function add(client: ControlPlaneClient, given: Given, name: string): Promise<Answer> {
  const displayName = optionalText(given, 'displayName') ?? name
  const email = optionalText(given, 'email') ?? null
  return await ask(client, { change: 'make', name, displayName, email, grants: parseGrants(given) }, name)
}

interface Change {
  readonly change: string
  readonly [parameter: string]: unknown
}

/** It is done where nobody could decide on it, or waits. */
async function ask(client: ControlPlaneClient, change: Change, name: string): Promise<Answer> {
  const changed = await client.ask('POST /people', peopleChangedSchema, change)
  if (changed.approval !== null) return { json: changed, text: waitsText(changed.approval) }
  const next = ['make', 'reset'].includes(change.change) ? `\n"resus user invite ${name}" gives the code for a password` : ''
  return { json: changed, text: `it is done, without a second person: there is no other approver yet${next}` }
}

async function invite(client: ControlPlaneClient, { id, name }: { readonly id: string; readonly name: string }): Promise<Answer> {
  const invitation = await client.ask(`POST /people/${id}/invitation`, invitationSchema)
  const { code, expiresAt } = invitation
  const text = [
    `the code with which "${name}" chooses a password ("resus log-on --invitation"), once, until ${formatTime(expiresAt)}:`,
    code,
    'it is shown this once; whoever has it has the account: hand it over yourself',
  ]
  return { json: invitation, text: text.join('\n') }
}

function grantsOf(given: Given) {
  return given.options.none === true ? [] : parseGrants(given)
}

export async function people(client: ControlPlaneClient): Promise<PersonDocument[]> {
  return await listAll(client, '/people', peopleSchema)
}

async function personNamed(client: ControlPlaneClient, name: string): Promise<PersonDocument> {
  const found = (await people(client)).find((person) => person.name === name)
  if (found !== undefined) return found
  throw new Failure('PERSON_UNKNOWN', `there is no "${name}"`, { hint: '"resus user list" has everybody' })
}
