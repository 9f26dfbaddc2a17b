import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { APPROVAL_STATES, approvalPageSchema, approvalSchema, decisionBody } from '../../api/authority-schemas.ts'
import { challengeSchema } from '../../api/auth-schemas.ts'
import { pageQuery, problemSchema } from '../../api/schemas.ts'
import { reaches } from '../../authority/roles.ts'
import { listApprovals, type Approval } from '../../catalog/approvals.ts'
import { Failure } from '../../errors.ts'
import type { View } from '../view.ts'
import { approvalDocument } from './approval-document.ts'
import { cursorOf, readCursor } from './cursor.ts'
import type { RouteOptions } from './route-options.ts'

const PREFIX = '/approvals'
const idParameter = z.object({ id: z.uuid() })
const failures = { '4xx': problemSchema, '5xx': problemSchema }

/** What takes two people: looked at, decided on, taken back. */
export const approvalRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  await server.register(readingRoutes, options)
  await server.register(decidingRoutes, options)
}

const readingRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control, authority }) => {
  server.get(
    PREFIX,
    {
      config: { action: 'approval.read' },
      schema: {
        summary: 'What was asked for and takes a second person, newest first',
        querystring: z.strictObject({ ...pageQuery, state: z.enum(APPROVAL_STATES).optional() }),
        response: { 200: approvalPageSchema, ...failures },
      },
    },
    async ({ query, view }) => {
      const { limit, cursor, state } = query
      const behind = cursor === undefined ? undefined : placeOf(readCursor(cursor))
      const states = state === undefined ? undefined : [state]
      const page = await listApprovals(control.store.sql, { states }, { limit, behind })
      const last = page.at(-1)
      return {
        items: page.filter((each) => seen(view, each)).map((each) => approvalDocument(each, view)),
        next: last === undefined || page.length < limit ? null : cursorOf([last.asked_at.toISOString(), last.id]),
      }
    },
  )

  server.get(
    `${PREFIX}/:id`,
    {
      config: { action: 'approval.read' },
      schema: { summary: 'One request', params: idParameter, response: { 200: approvalSchema, ...failures } },
    },
    async ({ params, view }) => approvalDocument(requireSeen(view, await authority.approvals.read(params.id)), view),
  )
}

const decidingRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { authority }) => {
  server.get(
    `${PREFIX}/:id/challenge`,
    {
      config: { action: 'approval.decide' },
      schema: {
        summary: 'What a browser needs to show a passkey for a decision',
        params: idParameter,
        response: { 200: challengeSchema, ...failures },
      },
    },
    async ({ params, view }) => {
      const approval = requireSeen(view, await authority.approvals.read(params.id))
      if (!view.reaches(view.facilitiesOf(approval))) {
        throw new Failure('FORBIDDEN', 'it is about facilities that you are no approver of')
      }
      const person = view.principal.person
      const passkey =
        person === null ? null : await authority.accounts.approvalChallenge(person, Buffer.from(approval.digest, 'hex'))
      return { passkey: passkey as Record<string, unknown> | null }
    },
  )

  server.post(
    `${PREFIX}/:id/decision`,
    {
      config: { action: 'approval.decide' },
      schema: {
        summary: 'Approve or refuse what another person asks for',
        params: idParameter,
        body: decisionBody,
        response: { 200: approvalSchema, ...failures },
      },
    },
    async ({ params, body, view }) => {
      const { digest, ...decision } = body
      const approval = requireSeen(view, await authority.approvals.read(params.id))
      if (approval.digest !== digest) {
        throw new Failure('APPROVAL_INVALID', 'the request has another digest than what was looked at', {
          hint: 'look at it again',
        })
      }
      return approvalDocument(await authority.approvals.decide(params.id, view.principal, decision), view)
    },
  )

  server.post(
    `${PREFIX}/:id/revoke`,
    {
      config: { action: 'approval.read' },
      schema: { summary: 'Take back what one asked for', params: idParameter, response: { 200: approvalSchema, ...failures } },
    },
    async ({ params, view }) => {
      requireSeen(view, await authority.approvals.read(params.id))
      return approvalDocument(await authority.approvals.revoke(params.id, view.principal), view)
    },
  )
}

/** By a grant that reads requests: one that reads status alone, however far, shows none but one's own. */
function seen(view: View, approval: Approval): boolean {
  const { principal } = view
  // A token is for less than its owner.
  const isOwn = principal.kind === 'person' && approval.asked_by === principal.person
  return isOwn || reaches(principal, 'approval.read', view.facilitiesOf(approval))
}

function requireSeen(view: View, approval: Approval): Approval {
  if (seen(view, approval)) return approval
  throw new Failure('APPROVAL_UNKNOWN', `there is no request "${approval.id}"`, { hint: 'GET approvals lists them' })
}

function placeOf([at = '', id = '']: readonly string[]): { readonly askedAt: Date; readonly id: string } {
  const askedAt = new Date(at)
  if (!Number.isNaN(askedAt.getTime()) && z.uuid().safeParse(id).success) return { askedAt, id }
  throw new Failure('ARGUMENTS_INVALID', 'this cursor is none')
}
