import { hostname, userInfo } from 'node:os'
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { Failure } from '../errors.ts'
import { appendWord, readRecord, recordsBackwards } from '../recovery/evidence/chain.ts'
import type { WordRecord } from '../recovery/evidence/record.ts'
import type { Repository } from '../repository/repository.ts'
import { optionalText, type Answer, type Context, type Given } from './verb.ts'

// What people say of records: certifications, deviations, corrective actions. Each is a record itself.

const DECISIONS = { accepted: 'accepted', deviations: 'accepted with deviations', rejected: 'rejected' } as const

/** Adds a person's word to the chain. Whoever has the host's account and the repository's key can: the record says which account it was. */
export async function recordWord(
  context: Context,
  given: Given,
  { repository, word }: { readonly repository: Repository; readonly word: 'certify' | 'deviate' | 'act' },
): Promise<Answer> {
  const { system } = await context.configuration()
  const said = await wordOf(context, given, { repository, word })
  const stored = await appendWord({ repository, system, clock: context.clock, signal: context.signal }, said)
  const action = stored.predicate.kind === 'action' ? `; the action is ${stored.predicate.action}` : ''
  return {
    json: { digest: stored.digest, ...stored.predicate },
    text: `record ${stored.sequence}: ${stored.predicate.kind} of record ${said.of.sequence}${action}`,
  }
}

async function wordOf(
  context: Context,
  given: Given,
  { repository, word }: { repository: Repository; word: 'certify' | 'deviate' | 'act' },
): Promise<WordRecord> {
  const changing = optionalText(given, 'action')
  if (word === 'act' && changing !== undefined) return await changedAction(context, given, { repository, action: changing })
  const of = await aboutOf(context, given, repository)
  const by = byOf(given)
  const text = needed(given, 'text', 'what is said')
  if (word === 'certify') {
    const decision = DECISIONS[needed(given, 'decision', 'accepted, deviations or rejected') as keyof typeof DECISIONS]
    if (decision === undefined) throw wrong('decision', 'accepted, deviations or rejected')
    return { kind: 'certification', of, by, decision, text }
  }
  if (word === 'deviate') {
    const severity = optionalText(given, 'severity') ?? 'minor'
    if (severity !== 'minor' && severity !== 'major') throw wrong('severity', 'minor or major')
    return { kind: 'deviation', of, by, severity, text }
  }
  const due = dueOf(given)
  return { kind: 'action', action: randomUUID(), of, by, owner: needed(given, 'owner', 'who does it'), due, state: 'open', text }
}

/** The same action with another state, owner or day: the newest record of it counts. */
async function changedAction(
  context: Context,
  given: Given,
  { repository, action }: { repository: Repository; action: string },
): Promise<WordRecord> {
  const warn = (sequence: number) => context.warn(`record ${sequence} is damaged, and is passed over`)
  for await (const { predicate } of recordsBackwards(repository, warn, { signal: context.signal })) {
    if (predicate.kind !== 'action' || predicate.action !== action) continue
    const state = optionalText(given, 'state') ?? predicate.state
    if (state !== 'open' && state !== 'done' && state !== 'dropped') throw wrong('state', 'open, done or dropped')
    return {
      kind: 'action',
      action,
      of: predicate.of,
      by: byOf(given),
      owner: optionalText(given, 'owner') ?? predicate.owner,
      due: optionalText(given, 'due') === undefined ? predicate.due : dueOf(given),
      state,
      text: optionalText(given, 'text') ?? predicate.text,
    }
  }
  throw new Failure('EVIDENCE_UNKNOWN', `there is no corrective action "${action}"`, {
    hint: '"resus evidence list" shows records',
  })
}

async function aboutOf(context: Context, given: Given, repository: Repository): Promise<{ sequence: number; digest: string }> {
  const text = given.args[1] ?? ''
  if (!/^\d{1,10}$/.test(text))
    throw new Failure('ARGUMENTS_INVALID', `"${text}" is no number of a record`, { hint: '"resus evidence list" shows them' })
  const { sequence, digest, predicate } = await readRecord(repository, Number(text), { signal: context.signal })
  if (predicate.kind === 'drill' || predicate.kind === 'recovery') return { sequence, digest }
  throw new Failure('ARGUMENTS_INVALID', `record ${sequence} is a ${predicate.kind}`, {
    hint: 'name that of a drill or of a recovery',
  })
}

/** Who is said to have said it, and which account of which host it was: the latter is known. */
function byOf(given: Given): string {
  return `${needed(given, 'by', 'whose word it is')} (account ${userInfo().username} of ${hostname()})`
}

function dueOf(given: Given): string {
  const due = z.iso.date().safeParse(needed(given, 'due', 'a day'))
  if (due.success) return due.data
  throw wrong('due', 'a day like 2026-12-31')
}

function needed(given: Given, name: string, what: string): string {
  const text = optionalText(given, name)?.trim()
  if (text !== undefined && text !== '') return text
  throw new Failure('ARGUMENTS_INVALID', `--${name} is missing: ${what}`, { hint: 'see "resus evidence --help"' })
}

function wrong(name: string, wanted: string): Failure {
  return new Failure('ARGUMENTS_INVALID', `--${name} is not what it can be: ${wanted}`, { hint: 'see "resus evidence --help"' })
}
