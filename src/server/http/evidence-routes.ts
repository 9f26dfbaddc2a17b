import { randomUUID } from 'node:crypto'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import {
  actionBody,
  actionChangeBody,
  certificationBody,
  deviationBody,
  evidenceDetailsSchema,
  evidenceListSchema,
  evidenceRecordSchema,
  evidenceReportSchema,
  type EvidenceListDocument,
} from '../../api/evidence-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import { Failure } from '../../errors.ts'
import { appendWord, readRecord, type StoredRecord } from '../../recovery/evidence/chain.ts'
import { publicKeys, repositoryRecords } from '../../recovery/evidence/collect.ts'
import { readDetails } from '../../recovery/evidence/details.ts'
import { isOverdue, type RunPredicate, type WordRecord } from '../../recovery/evidence/record.ts'
import { recordPage } from '../../recovery/evidence/record-page.ts'
import type { Repository } from '../../repository/repository.ts'
import { verifyEvidence, type EvidenceReport } from '../../recovery/evidence/verify-evidence.ts'
import { forecastRto } from '../../recovery/forecast.ts'
import { resolveObjectives } from '../../recovery/objectives.ts'
import type { EvidenceBook } from '../evidence-book.ts'
import type { View } from '../view.ts'
import type { RouteOptions } from './route-options.ts'

const PREFIX = '/evidence'
const failures = { '4xx': problemSchema, '5xx': problemSchema }
const systemQuery = { system: z.string().max(200).optional().describe('where there are several') }
const query = z.strictObject(systemQuery)
const params = z.object({ sequence: z.coerce.number().int().min(1).max(9_999_999_999) })
const LIST_MAX = 500

/** What drills and recoveries left, as it was signed. */
export const evidenceRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  await server.register(evidenceListRoutes, options)
  await server.register(evidenceReadRoutes, options)
  await server.register(evidenceWordRoutes, options)
}

const evidenceListRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control, evidence, signal }) => {
  const running = new Map<string, Promise<EvidenceReport>>()
  server.get(
    PREFIX,
    {
      config: { action: 'status.read' },
      schema: {
        summary: 'Drills and recoveries, newest first: verdicts, measured times; and of each system how many records there are',
        querystring: z.strictObject({ ...systemQuery, component: z.string().max(200).optional() }),
        response: { 200: evidenceListSchema, ...failures },
      },
    },
    async (request) => listDocument(evidence, request.view, { ...request.query, nowMs: control.now }),
  )

  server.get(
    `${PREFIX}/verification`,
    {
      config: { action: 'evidence.verify' },
      schema: {
        summary: 'Whether all records are as they were signed',
        querystring: z.strictObject({
          ...systemQuery,
          fingerprint: z
            .string()
            .regex(/^[0-9a-f]{64}$/)
            .optional(),
        }),
        response: { 200: evidenceReportSchema, ...failures },
      },
    },
    async (request) => {
      const { system, fingerprint } = request.query
      const named = request.view.system(system)
      // It reads every record: whoever asks for the same at the same time gets the same answer.
      const key = JSON.stringify([named, fingerprint])
      const verifying =
        running.get(key) ??
        verifyAll(await control.catalogue.repositoryOf(named), fingerprint, signal).finally(() => running.delete(key))
      running.set(key, verifying)
      const report = await verifying
      return { ...report, signers: [...report.signers], problems: [...report.problems] }
    },
  )
}

async function verifyAll(repository: Repository, fingerprint: string | undefined, signal: AbortSignal): Promise<EvidenceReport> {
  const keys = [...(await publicKeys(repository, { signal })).values()]
  return await verifyEvidence({ records: repositoryRecords(repository, { signal }), keys, fingerprint, heads: [] })
}

const evidenceReadRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control }) => {
  server.get(
    `${PREFIX}/:sequence`,
    {
      config: { action: 'status.read' },
      schema: {
        summary: 'One record, as it was signed',
        params,
        querystring: query,
        response: { 200: evidenceRecordSchema, ...failures },
      },
    },
    async (request) => {
      const { record } = await seen(control, request)
      return recordDocument(record)
    },
  )

  server.get(
    `${PREFIX}/:sequence/page`,
    {
      config: { action: 'status.read' },
      schema: {
        summary: 'The same as a page that prints well',
        params,
        querystring: query,
        response: { 200: z.string(), ...failures },
      },
    },
    async (request, reply) => {
      const { record } = await seen(control, request)
      // The page has styles of its own, and nothing else.
      const policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
      return await reply.header('Content-Security-Policy', policy).type('text/html; charset=utf-8').send(recordPage(record))
    },
  )

  // No GET: each reading is in the trail.
  server.post(
    `${PREFIX}/:sequence/details`,
    {
      config: { action: 'evidence.details' },
      schema: {
        summary: 'What was found, row by row: it may name patients, and the trail keeps who read it',
        params,
        querystring: query,
        response: { 200: evidenceDetailsSchema, ...failures },
      },
    },
    async (request) => {
      const { record, repository } = await seen(control, request)
      const run = requireRun(record)
      request.view.requireReached(run.system, run.component)
      if (run.details === null)
        throw new Failure('EVIDENCE_UNKNOWN', `record ${record.sequence} has no details`, { hint: 'the record is all there is' })
      const { id, checks } = await readDetails(repository, run.details)
      return { id, checks }
    },
  )
}

/** What people say of a record. */
const evidenceWordRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control, evidence }) => {
  const words = [
    ['certifications', 'Management has reviewed a record: accepted, with deviations, or rejected', certificationBody],
    ['deviations', 'What was not as it should have been', deviationBody],
    ['actions', 'Open a corrective action: who does it, until when', actionBody],
  ] as const
  for (const [name, summary, body] of words) {
    server.post(
      `${PREFIX}/:sequence/${name}`,
      {
        config: { action: 'evidence.certify' },
        schema: { summary, params, querystring: query, body, response: { 201: evidenceRecordSchema, ...failures } },
      },
      async (request, reply) => {
        const { record, system } = await seen(control, request)
        const run = requireRun(record)
        request.view.requireReached(system, run.component)
        const of = { sequence: record.sequence, digest: record.digest }
        const by = request.view.principal.name
        const said = wordOf(request.body, { of, by })
        return await reply.code(201).send(await append(control, { system, word: said }))
      },
    )
  }

  server.post(
    `${PREFIX}/actions/:action`,
    {
      config: { action: 'evidence.certify' },
      schema: {
        summary: 'Change a corrective action, or say that it is done',
        params: z.object({ action: z.uuid() }),
        querystring: query,
        body: actionChangeBody,
        response: { 201: evidenceRecordSchema, ...failures },
      },
    },
    async (request, reply) => {
      const system = request.view.system(request.query.system)
      const known = evidence.openActions(system).find(({ action }) => action === request.params.action)
      if (known === undefined)
        throw new Failure('EVIDENCE_UNKNOWN', `no corrective action "${request.params.action}" is open`, {
          hint: 'GET evidence lists them',
        })
      request.view.requireReached(system, null)
      const { of, owner, due, text } = known
      const changes = Object.fromEntries(Object.entries(request.body).filter(([, value]) => value !== undefined))
      const changed = { owner, due, text, state: 'open' as const, ...changes }
      const record = { kind: 'action' as const, action: known.action, of, by: request.view.principal.name, ...changed }
      return await reply.code(201).send(await append(control, { system, word: record }))
    },
  )
}

type Word = z.infer<typeof certificationBody> | z.infer<typeof deviationBody> | z.infer<typeof actionBody>

function wordOf(body: Word, about: { readonly of: { sequence: number; digest: string }; readonly by: string }): WordRecord {
  if ('decision' in body) return { kind: 'certification', ...about, ...body }
  if ('severity' in body) return { kind: 'deviation', ...about, ...body }
  return { kind: 'action', action: randomUUID(), state: 'open', ...about, ...body }
}

async function append(
  control: RouteOptions['control'],
  { system, word }: { readonly system: string; readonly word: WordRecord },
): Promise<z.infer<typeof evidenceRecordSchema>> {
  const repository = await control.catalogue.repositoryOf(system)
  return recordDocument(await appendWord({ repository, system, clock: control.clock }, word))
}

function recordDocument({ sequence, digest, envelope, predicate }: StoredRecord): z.infer<typeof evidenceRecordSchema> {
  return { sequence, digest, signer: envelope.signatures[0]!.keyid, predicate: { ...predicate }, envelope }
}

interface Asked {
  readonly view: View
  readonly params: { readonly sequence: number }
  readonly query: { readonly system?: string | undefined }
}

/** A record that may be seen: of a component that is, or whoever sees everything. What may not is answered as if it were not there. */
async function seen(control: RouteOptions['control'], { view, params: { sequence }, query: { system: named } }: Asked) {
  const system = view.system(named)
  const repository = await control.catalogue.repositoryOf(system)
  const record = await readRecord(repository, sequence)
  const component = 'component' in record.predicate ? record.predicate.component : null
  const picture = component === null ? undefined : control.catalogue.picture(system, component)
  if (picture !== undefined && view.sees(system, component) && !view.seesAllOf(picture)) {
    throw new Failure('FORBIDDEN', `record ${sequence} tells of other facilities too`, {
      hint: 'GET evidence has its verdict and its times',
    })
  }
  if (view.sees(system, component)) return { record, repository, system }
  throw new Failure('EVIDENCE_UNKNOWN', `there is no record ${sequence}`, { hint: 'GET evidence lists those that there are' })
}

function requireRun({ predicate, sequence }: StoredRecord): RunPredicate {
  if (predicate.kind === 'drill' || predicate.kind === 'recovery') return predicate
  throw new Failure('ARGUMENTS_INVALID', `record ${sequence} is a ${predicate.kind}`, {
    hint: 'name that of a drill or of a recovery',
  })
}

function listDocument(
  evidence: EvidenceBook,
  view: View,
  asked: { readonly system?: string | undefined; readonly component?: string | undefined; readonly nowMs: number },
): EvidenceListDocument {
  const pictures = view
    .pictures()
    .filter(({ system }) => asked.system === undefined || system === asked.system)
    .filter(({ component }) => asked.component === undefined || component.name === asked.component)
  const items = pictures
    .flatMap((picture) => {
      const isWhole = view.seesAllOf(picture)
      return (evidence.runs(picture.system, picture.component.name) ?? []).map((run) => ({
        system: picture.system,
        run,
        isWhole,
      }))
    })
    .toSorted((left, right) => (left.run.madeAt < right.run.madeAt ? 1 : -1))
    .slice(0, LIST_MAX)
    .map(({ system, run, isWhole }) => {
      const { measured, recoveryPoint, checks: _, ...rest } = run
      return {
        ...rest,
        why: isWhole ? run.why : 'its checks tell of other facilities too',
        system,
        target: recoveryPoint.target,
        turn: recoveryPoint.turn,
        rtoSeconds: measured.rtoSeconds,
        rpoSeconds: measured.rpoSeconds,
        certified: evidence.certification(system, run.sequence)?.decision ?? null,
      }
    })
  const systems = view.isWhole ? view.systems() : []
  const forecasts = pictures.flatMap(({ system, component }) => {
    const runs = (evidence.runs(system, component.name) ?? []).map(({ madeAt, verdict, measured }) => ({
      madeAt,
      verdict,
      rtoSeconds: measured.rtoSeconds,
    }))
    const configuration = view.systems().find((each) => each.system === system)
    const target = resolveObjectives({ objectives: configuration?.objectives }, component).values.rtoMinutes?.value ?? null
    const forecast = forecastRto(runs, target, asked.nowMs)
    return forecast === null ? [] : [{ system, component: component.name, ...forecast }]
  })
  return {
    items,
    forecasts,
    systems: systems.map(({ system }) => ({
      system,
      count: evidence.head(system)?.count ?? null,
      last: evidence.head(system)?.digest ?? null,
      problem: evidence.problem(system),
      openActions: evidence.openActions(system).map(({ action, of, text, owner, due }) => ({
        action,
        of: of.sequence,
        text,
        owner,
        due,
        overdue: isOverdue({ due }, asked.nowMs),
      })),
    })),
  }
}
