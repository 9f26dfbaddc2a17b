import type { z } from 'zod'
import { emergenciesSchema, emergencySchema } from '../api/authority-schemas.ts'
import { Failure } from '../errors.ts'
import { ControlPlaneClient } from './control-plane-client.ts'
import { formatTable, formatTime } from './output.ts'
import { plainText } from './plain-text.ts'
import { Prompter } from './prompter.ts'
import { optionalText, type Answer, type Given, type Verb } from './verb.ts'

const HEAD = ['ID', 'WHAT', 'AT', 'BY', 'REASON', 'UNTIL', 'REVIEW'] as const

type Emergencies = z.infer<typeof emergenciesSchema>['items']

/** What one person may do alone because it cannot wait, and what another says of it afterwards. */
export const run: Verb = async (context, given) => {
  const [what, id] = given.args
  const client = await ControlPlaneClient.ofPerson(given, context.signal)
  switch (what) {
    case 'declare':
      return await declare(client, given, new Prompter(context.signal))
    case 'list':
      return list((await client.ask('GET /emergencies', emergenciesSchema)).items)
    case 'review':
      return await review(client, given, id)
    default:
      throw new Failure('ARGUMENTS_INVALID', `"${what}" is nothing that can be done with emergencies`, {
        hint: 'declare, list or review',
      })
  }
}

async function declare(client: ControlPlaneClient, given: Given, prompter: Prompter): Promise<Answer> {
  const reason = needed(given, 'reason', 'declare --reason "what has happened"')
  using asking = prompter
  const question = 'to declare it, a new code of the authenticator (six digits)'
  const declared = await asking.withCode(question, async (code) =>
    client.ask('POST /emergencies', emergencySchema, { reason, factor: { kind: 'totp', code } }),
  )
  const { id, until, reviewDue } = declared
  const text = [
    `the emergency ${id} is declared, and everybody is told: until ${formatTime(until)} restores to new places take one person`,
    `by the API they run at once; on a host: "resus restore ... --emergency ${id}"`,
    `another person reviews it until ${formatTime(reviewDue)}: "resus emergency review ${id} --text ..."`,
  ]
  return { json: declared, text: text.join('\n') }
}

function list(all: Emergencies): Answer {
  const rows = all.map(({ kind, id, at, by, reason, until, reviewDue, review: reviewed }) => [
    id,
    kind,
    formatTime(at),
    plainText(by.name),
    reason === null ? '-' : plainText(reason),
    formatTime(until),
    reviewed === null ? `due until ${formatTime(reviewDue)}` : plainText(`${reviewed.by}: ${reviewed.text}`),
  ])
  return { json: all, text: rows.length === 0 ? 'there was none' : formatTable(HEAD, rows) }
}

async function review(client: ControlPlaneClient, given: Given, id: string | undefined): Promise<Answer> {
  if (id === undefined || !/^[0-9a-f-]{36}$/.test(id)) {
    throw new Failure('ARGUMENTS_INVALID', 'review which emergency?', { hint: '"resus emergency list" has their ids' })
  }
  const text = needed(given, 'text', 'review ID --text "how it was"')
  const { items } = await client.ask(`POST /emergencies/${id}/review`, emergenciesSchema, { text })
  return { json: items, text: `${id} is reviewed` }
}

function needed(given: Given, name: string, usage: string): string {
  const text = optionalText(given, name)
  if (text !== undefined) return text
  throw new Failure('ARGUMENTS_INVALID', `--${name} is missing`, { hint: `resus emergency ${usage}` })
}
