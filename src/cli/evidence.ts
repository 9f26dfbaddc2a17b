import { readFile, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { openBundle } from '../recovery/evidence/bundle.ts'
import { readRecord, recordsBackwards, type StoredRecord } from '../recovery/evidence/chain.ts'
import { bundleEvidence, publicKeys, repositoryRecords } from '../recovery/evidence/collect.ts'
import { readDetails } from '../recovery/evidence/details.ts'
import { envelopeSchema, type Envelope } from '../recovery/evidence/envelope.ts'
import { currentKey, rotateSigningKey } from '../recovery/evidence/keys.ts'
import { PeriodReport } from '../recovery/evidence/period-report.ts'
import { recordPage } from '../recovery/evidence/record-page.ts'
import { verifyEvidence, type EvidenceQuestion, type EvidenceReport } from '../recovery/evidence/verify-evidence.ts'
import type { Repository } from '../repository/repository.ts'
import { formatFields, formatTable, formatTime } from './output.ts'
import { plainLines } from './plain-text.ts'
import { printPdf } from './print-pdf.ts'
import { recordWord } from './evidence-words.ts'
import { optionalText, type Answer, type Context, type Given, type Verb } from './verb.ts'

const SHOWN = 50

/** What drills and recoveries left: signed records, from the repository or a bundle. */
export const run: Verb = async (context, given) => {
  const [what] = given.args
  switch (what) {
    case 'list':
      return await list(context, given)
    case 'show':
      return await show(context, given)
    case 'details':
      return await details(context, given)
    case 'verify':
      return await verify(context, given)
    case 'bundle':
      return await bundle(context, given)
    case 'controls':
      return await controls(context, given)
    case 'key':
      return await key(context, given)
    case 'certify':
    case 'deviate':
    case 'act':
      return await recordWord(context, given, { repository: await open(context), word: what })
    default:
      throw new Failure('ARGUMENTS_INVALID', `"${what}" is nothing that can be done with evidence`, {
        hint: 'list, show, details, verify, bundle, controls, key, certify, deviate or act',
      })
  }
}

async function open(context: Context): Promise<Repository> {
  return await openConfigured(await context.configuration(), context.warn)
}

async function list(context: Context, given: Given): Promise<Answer> {
  const all = given.options.all === true
  const records: StoredRecord[] = []
  let more = false
  for await (const record of recordsBackwards(await open(context), warnOfDamage(context), { signal: context.signal })) {
    if (!all && records.length === SHOWN) {
      more = true
      break
    }
    records.push(record)
  }
  const rows = records.map(({ sequence, predicate }) => [
    String(sequence),
    formatTime(predicate.madeAt),
    ...('verdict' in predicate
      ? [
          `${predicate.kind} of ${predicate.component}`,
          predicate.verdict,
          seconds(predicate.measured.rtoSeconds),
          seconds(predicate.measured.rpoSeconds),
        ]
      : [predicate.kind === 'key' ? 'key' : `${predicate.kind} of record ${predicate.of.sequence}`, '', '', '']),
  ])
  const table =
    rows.length === 0
      ? 'There is no record yet: "resus drill" makes the first.'
      : formatTable(['NUMBER', 'WHEN', 'WHAT', 'VERDICT', 'RTO', 'RPO'], rows)
  return {
    json: records.map(({ digest, predicate }) => ({ digest, ...predicate })),
    text: more ? `${table}\nOlder ones are left out; --all shows them.` : table,
  }
}

async function show(context: Context, given: Given): Promise<Answer> {
  const record = await readRecord(await open(context), sequenceOf(given), { signal: context.signal })
  const [html, pdf] = [optionalText(given, 'html'), optionalText(given, 'pdf')]
  if (html !== undefined) await writeFile(html, recordPage(record), { mode: 0o600 })
  if (pdf !== undefined) await printPdf(recordPage(record), pdf, context.signal)
  const { predicate, digest, envelope } = record
  const written = [html, pdf].flatMap((path) => (path === undefined ? [] : [`written: ${path}`]))
  return {
    json: { sequence: record.sequence, digest, signer: envelope.signatures[0]!.keyid, predicate, envelope },
    text: [plainLines(describe(record)), ...written].join('\n'),
  }
}

async function details(context: Context, given: Given): Promise<Answer> {
  const repository = await open(context)
  const { predicate, sequence } = await readRecord(repository, sequenceOf(given), { signal: context.signal })
  if (!('details' in predicate) || predicate.details === null)
    throw new Failure('EVIDENCE_UNKNOWN', `record ${sequence} has no details`, { hint: '"resus evidence show" shows all of it' })
  const found = await readDetails(repository, predicate.details, { signal: context.signal })
  const text = found.checks.map(({ name, said, findings }) => `${name}: ${said}\n${JSON.stringify(findings, null, 2)}`)
  return { json: found, text: plainLines(text.join('\n\n')) }
}

async function verify(context: Context, given: Given): Promise<Answer> {
  const directory = given.args[1]
  const headFile = optionalText(given, 'head')
  const heads = headFile === undefined ? [] : [await readHead(headFile)]
  const fingerprint = fingerprintOf(given)
  const { question, sums } =
    directory === undefined
      ? { question: await questionOfRepository(context), sums: [] }
      : await questionOfBundle(resolve(directory))
  const report = await verifyEvidence({ ...question, fingerprint, heads })
  const failed = report.verdict === 'failed' || sums.length > 0
  return {
    json: { ...report, verdict: failed ? 'failed' : report.verdict, files: sums },
    text: describeReport(report, sums),
    exitStatus: !failed && report.verdict === 'verified' ? 0 : 1,
  }
}

type Question = Pick<EvidenceQuestion, 'records' | 'keys' | 'bundleHead'>

async function questionOfRepository(context: Context): Promise<Question> {
  const repository = await open(context)
  const call = { signal: context.signal }
  return { records: repositoryRecords(repository, call), keys: [...(await publicKeys(repository, call)).values()] }
}

async function questionOfBundle(directory: string): Promise<{ question: Question; sums: readonly string[] }> {
  const { head, keys, records, sums } = await openBundle(directory)
  const missing = head === undefined ? ['head.dsse.json, the signed count, is not there or not readable'] : []
  return { question: { records: records(), keys, bundleHead: head }, sums: [...missing, ...sums] }
}

async function bundle(context: Context, given: Given): Promise<Answer> {
  const to = optionalText(given, 'to')
  if (to === undefined)
    throw new Failure('ARGUMENTS_INVALID', 'where to was not said', { hint: '--to DIRECTORY, which is not there yet' })
  const directory = resolve(to)
  const configuration = await context.configuration()
  const written = await bundleEvidence({
    repository: await openConfigured(configuration, context.warn),
    components: configuration.components.map(({ name }) => name),
    directory,
    fromMs: timeOf(given, 'from'),
    untilMs: timeOf(given, 'until'),
    clock: context.clock,
    signal: context.signal,
  })
  return {
    json: { directory, ...written },
    text: `${written.records} records in ${written.files} files: ${directory}\nWhoever checks them needs the signer's fingerprint from elsewhere: the recovery sheet, or a digest.`,
  }
}

/** What each framework asks for, and whether the records of the period show it, for every component that is configured. */
async function controls(context: Context, given: Given): Promise<Answer> {
  const configuration = await context.configuration()
  const repository = await openConfigured(configuration, context.warn)
  const [fromMs = -Infinity, untilMs = context.clock.now()] = [timeOf(given, 'from'), timeOf(given, 'until')]
  const components = configuration.components.map(({ name }) => name)
  const report = new PeriodReport({ system: configuration.system, untilMs, components })
  const records: StoredRecord[] = []
  for await (const record of recordsBackwards(repository, warnOfDamage(context), { signal: context.signal })) {
    const madeMs = Date.parse(record.predicate.madeAt)
    if (madeMs < fromMs) break
    if (madeMs < untilMs) records.push(record)
  }
  for (const record of records.toReversed()) report.add(record)
  const judged = report.controls(untilMs)
  const rows = judged.map(({ framework, id, state, why }) => [framework, id, state, why])
  return { json: judged, text: plainLines(formatTable(['FRAMEWORK', 'REQUIREMENT', 'STATE', 'WHY'], rows)) }
}

async function key(context: Context, given: Given): Promise<Answer> {
  const configuration = await context.configuration()
  const repository = await openConfigured(configuration, context.warn)
  if (given.options.rotate === true) {
    const { sequence } = await rotateSigningKey({
      repository,
      system: configuration.system,
      clock: context.clock,
      signal: context.signal,
    })
    context.warn(`record ${sequence} names the new key: note its fingerprint elsewhere`)
  }
  const current = await currentKey(repository, { signal: context.signal })
  if (current === undefined) return { json: null, text: 'There is none yet: the first record makes it.' }
  return { json: current, text: `${formatFields([['fingerprint', current.fingerprint]])}\n${current.publicKey.trimEnd()}` }
}

function describe({ sequence, digest, predicate, envelope }: StoredRecord): string {
  const signed = [
    ['made at', formatTime(predicate.madeAt)],
    ['signed by', envelope.signatures[0]!.keyid],
    ['sha256', digest],
  ] as const
  if (!('verdict' in predicate)) {
    const { format: _, sequence: _number, id: _id, previous: _previous, madeAt: _madeAt, system: _system, ...rest } = predicate
    const fields = Object.entries(rest).map(
      ([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)] as const,
    )
    return formatFields([['record', String(sequence)], ...fields, ...signed])
  }
  const { recoveryPoint: point, measured } = predicate
  const why = (name: string) => `not measured: ${measured.why[name] ?? 'not known'}`
  const fields = [
    ['record', `${sequence}: ${predicate.kind} of "${predicate.component}"`],
    ['verdict', `${predicate.verdict}: ${predicate.why}`],
    ['valid until', formatTime(predicate.expires)],
    ['recovery point', `${point.target}, from backup ${point.backup}`],
    ['RTO', measured.rtoSeconds === null ? why('rtoSeconds') : `${measured.rtoSeconds.toFixed(1)} s`],
    ['RPO', measured.rpoSeconds === null ? why('rpoSeconds') : `${measured.rpoSeconds.toFixed(1)} s`],
    ['leftovers', predicate.leftovers.removed === true ? 'removed' : predicate.leftovers.seen],
    ...signed,
  ] as const
  const checks = predicate.checks.map((each) => `  ${each.verdict.padEnd(10)}  ${each.name}: ${each.found}`)
  const notTested = predicate.notTested.map((each) => `  ${each}`)
  return [formatFields(fields), 'checks:', ...checks, 'not tested:', ...notTested].join('\n')
}

function describeReport(report: EvidenceReport, sums: readonly string[]): string {
  const failed = report.verdict === 'failed' || sums.length > 0
  const fields = [
    ['evidence', failed ? 'NOT as it was signed' : report.verdict],
    ['why', report.why],
    ['records', report.first === null ? 'none' : `${report.records}, ${report.first} to ${String(report.last)}`],
    ['signed by', report.signers.join(', ') || 'nobody'],
  ] as const
  const problems = report.problems.map(
    ({ kind, sequence, text }) => `${kind.toUpperCase()}${sequence === null ? '' : ` record ${sequence}`}: ${text}`,
  )
  const note = report.lastDigest === null ? [] : [`Note elsewhere: record ${String(report.last)} is ${report.lastDigest}`]
  return [formatFields(fields), ...problems, ...sums.map((each) => `FILE ${each}`), ...note].join('\n')
}

function sequenceOf(given: Given): number {
  const text = given.args[1]
  if (text !== undefined && /^\d{1,10}$/.test(text) && Number(text) > 0) return Number(text)
  throw new Failure('ARGUMENTS_INVALID', `"${text ?? ''}" is no number of a record`, { hint: '"resus evidence list" shows them' })
}

function fingerprintOf(given: Given): string | undefined {
  const text = optionalText(given, 'fingerprint')?.replaceAll(/[\s:]/g, '').toLowerCase()
  if (text === undefined || /^[0-9a-f]{64}$/.test(text)) return text
  throw new Failure('ARGUMENTS_INVALID', '--fingerprint has 64 hex digits', { hint: 'it is on the recovery sheet' })
}

async function readHead(path: string): Promise<Envelope> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new Failure('ARGUMENTS_INVALID', `cannot read "${path}": ${String(error)}`)
  })
  const envelope = envelopeSchema.safeParse(tryJson(text))
  if (envelope.success) return envelope.data
  throw new Failure('ARGUMENTS_INVALID', `"${path}" is no signed count`, { hint: 'it is head.dsse.json of an earlier bundle' })
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

function timeOf(given: Given, name: string): number | undefined {
  const text = optionalText(given, name)
  if (text === undefined) return undefined
  const ms = Date.parse(text)
  if (!Number.isNaN(ms)) return ms
  throw new Failure('ARGUMENTS_INVALID', `--${name} "${text}" is no time`, {
    hint: 'a day like 2026-01-01, or 2026-01-01T00:00:00Z',
  })
}

function warnOfDamage(context: Context): (sequence: number, failure: Failure) => void {
  return (sequence, { message }) => context.warn(`record ${sequence} is passed over: ${message}`)
}

function seconds(value: number | null): string {
  return value === null ? '-' : `${value.toFixed(1)} s`
}
