import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import {
  firstBody,
  invitationSchema,
  peopleChangedSchema,
  peopleSchema,
  type PersonDocument,
} from '../../api/authority-schemas.ts'
import { logOnSchema } from '../../api/auth-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import { requireGoodPassword } from '../../authority/password.ts'
import type { PersonView } from '../../authority/people.ts'
import { assert } from '../../assert.ts'
import { Failure } from '../../errors.ts'
import type { Authority } from '../authority/authority.ts'
import { changePeople, peopleSchema as changeSchema } from '../authority/executor.ts'
import type { Json } from '../../authority/canonical-json.ts'
import { approvalDocument } from './approval-document.ts'
import { fromOf } from './identity.ts'
import { showSession } from './own-session.ts'
import { requireOwnOrigin } from './same-site.ts'
import type { RouteOptions } from './route-options.ts'

const failures = { '4xx': problemSchema, '5xx': problemSchema }
const WHOLE = { system: null, component: null }
const idParameter = z.object({ id: z.uuid() })

/** People, as their administration sees them. */
export const peopleRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  await server.register(listRoutes, options)
  await server.register(changeRoutes, options)
  await server.register(firstRoutes, options)
}

const listRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { authority }) => {
  server.get(
    '/people',
    {
      config: { action: 'people.read' },
      schema: {
        summary: 'People, by name, with what they may do and when they were last here',
        querystring: z.strictObject({
          limit: z.coerce.number().int().min(1).max(500).default(100),
          cursor: z.string().max(63).optional().describe('`next` of the page before'),
        }),
        response: { 200: peopleSchema, ...failures },
      },
    },
    async ({ query }) => {
      const { limit, cursor } = query
      const people = await authority.accounts.people.list({ limit, ...(cursor === undefined ? {} : { behind: cursor }) })
      return { items: people.map(personDocument), next: people.length < limit ? null : (people.at(-1)?.name ?? null) }
    },
  )
}

const changeRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { authority, control }) => {
  server.post(
    '/people',
    {
      config: { action: 'people.ask' },
      schema: {
        summary: 'Ask for a change of people: made, granted, disabled, enabled, reset',
        body: changeSchema,
        response: { 202: peopleChangedSchema, ...failures },
      },
    },
    async ({ body, view }, reply) => {
      const { principal } = view
      if (principal.person === null) throw new Failure('FORBIDDEN', 'people are made by people: the first comes by the link')
      if ('person' in body) await authority.accounts.people.requireKnown(body.person)
      reply.code(202)
      if (await authority.isSetUp(principal.person)) {
        const { person } = await changePeople(
          body,
          { id: principal.person, since: new Date(control.now) },
          authority.accounts.people,
        )
        return { approval: null, person }
      }
      const approval = await authority.approvals.ask(
        principal,
        { operation: 'people', parameters: body as unknown as Record<string, Json> },
        WHOLE,
      )
      reply.header('Location', `/api/v1/approvals/${approval.id}`)
      return { approval: approvalDocument(approval, view), person: null }
    },
  )

  server.post(
    '/people/:id/invitation',
    {
      config: { action: 'people.ask' },
      schema: {
        summary: 'A code with which somebody without a password chooses one',
        params: idParameter,
        response: { 201: invitationSchema, ...failures },
      },
    },
    async (request, reply) => {
      const { people } = authority.accounts
      const { id } = request.params
      const by = request.view.principal.person!
      const person = await people.read(id)
      if (person.hasPassword) {
        throw new Failure('PERSON_EXISTS', `"${person.name}" has a password`, {
          hint: 'ask for a reset first: it takes a second person',
        })
      }
      const { code, expiresAt } = await people.invite(id, { id: by, from: fromOf(request) })
      reply.code(201)
      return { code, expiresAt: expiresAt.toISOString() }
    },
  )
}

const firstRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { authority, isSecure }) => {
  server.post(
    '/first-administrator',
    {
      config: { action: 'none' },
      schema: {
        summary: 'Become the first administrator, by the link of the file',
        body: firstBody,
        response: { 200: logOnSchema, ...failures },
      },
    },
    async (request, reply) => {
      requireOwnOrigin(request)
      const { code, password, ...person } = request.body
      await authority.settle()
      requireGoodPassword(password, person.name)
      authority.first.take(code)
      const begun = await becomeFirst(authority, { ...person, password }, fromOf(request))
      await authority.begin()
      assert(begun.kind === 'session', 'who has just come has no second factor')
      return {
        kind: 'session' as const,
        session: showSession(reply, begun.session, { accounts: authority.accounts, isSecure }),
        isFactorNeeded: begun.isFactorNeeded,
      }
    },
  )
}

async function becomeFirst(
  { accounts }: Authority,
  { password, ...person }: { readonly name: string; readonly displayName: string; readonly password: string },
  from: { readonly address: string | null; readonly userAgent: string | null },
) {
  const by = { id: 'bootstrap', from }
  const grants = [{ role: 'administrator' as const, facilities: null }]
  // One who was killed half-way comes again.
  const there = await accounts.people.readByName(person.name)
  const { id } = there ?? (await accounts.people.insertPerson({ ...person, email: null, grants }, by))
  const { code } = await accounts.people.invite(id, by)
  return await accounts.acceptInvitation({ code, password }, from)
}

function personDocument(person: PersonView & { readonly factors: number }): PersonDocument {
  const { identity: _, ...rest } = person
  return {
    ...rest,
    grants: [...person.grants],
    lockedUntil: person.lockedUntil?.toISOString() ?? null,
    madeAt: person.madeAt.toISOString(),
    resetAt: person.resetAt?.toISOString() ?? null,
    lastSeenAt: person.lastSeenAt?.toISOString() ?? null,
  }
}
