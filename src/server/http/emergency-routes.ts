import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import {
  emergenciesSchema,
  emergencyBody,
  emergencySchema,
  reasonQuery,
  reviewBody,
  sealedCodeSchema,
} from '../../api/authority-schemas.ts'
import { challengeSchema } from '../../api/auth-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import { newBreakGlass } from '../../authority/break-glass.ts'
import { emergencyDigest } from '../authority/reviews.ts'
import { Failure } from '../../errors.ts'
import { approvalDocument } from './approval-document.ts'
import type { RouteOptions } from './route-options.ts'

const failures = { '4xx': problemSchema, '5xx': problemSchema }

/** What one person may do alone because it cannot wait, and what others say of it afterwards. */
export const emergencyRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  await server.register(declareRoutes, options)
  await server.register(reviewRoutes, options)
}

const declareRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { authority }) => {
  const { reviews } = authority
  server.get(
    '/emergencies',
    {
      config: { action: 'status.read' },
      schema: {
        summary: 'Emergencies that were declared, and sealed codes that were used',
        response: { 200: emergenciesSchema, ...failures },
      },
    },
    async ({ view }) => ({ items: view.isWhole ? [...reviews.all] : [] }),
  )

  server.get(
    '/emergencies/challenge',
    {
      config: { action: 'emergency.declare' },
      schema: {
        summary: 'What a browser needs to show a passkey for an emergency with this reason',
        querystring: reasonQuery,
        response: { 200: challengeSchema, ...failures },
      },
    },
    async ({ query, view }) => {
      const { kind, person } = view.principal
      if (kind === 'token') throw new Failure('FORBIDDEN', 'a token declares no emergency')
      const digest = Buffer.from(emergencyDigest(query.reason), 'hex')
      const passkey = person === null ? null : await authority.accounts.approvalChallenge(person, digest)
      return { passkey: passkey as Record<string, unknown> | null }
    },
  )

  server.post(
    '/emergencies',
    {
      config: { action: 'emergency.declare' },
      schema: {
        summary: 'Declare an emergency: for four hours restores to new places take one person, and everybody is told',
        body: emergencyBody,
        response: { 201: emergencySchema, ...failures },
      },
    },
    async ({ body, view }, reply) => {
      const declared = await authority.declareEmergency(view.principal, body.reason, body.factor)
      reply.code(201)
      return declared
    },
  )
}

const reviewRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { authority }) => {
  const { reviews, approvals } = authority
  server.post(
    '/emergencies/:id/review',
    {
      config: { action: 'emergency.review' },
      schema: {
        summary: 'Say how it was: another person than who did it',
        params: z.object({ id: z.uuid() }),
        body: reviewBody,
        response: { 200: emergenciesSchema, ...failures },
      },
    },
    async ({ params, body, view }) => {
      await reviews.review(await authority.repositories(), params.id, view.principal, body.text)
      return { items: [...reviews.all] }
    },
  )

  server.post(
    '/break-glass',
    {
      config: { action: 'people.ask' },
      schema: {
        summary: 'Make a sealed code, good once another person has approved it',
        response: { 202: sealedCodeSchema, ...failures },
      },
    },
    async ({ view }, reply) => {
      const { id, code, digest } = newBreakGlass()
      const subject = { system: null, component: null }
      const approval = await approvals.ask(view.principal, { operation: 'break-glass', parameters: { id, digest } }, subject)
      reply.code(202).header('Location', `/api/v1/approvals/${approval.id}`)
      return { code, approval: approvalDocument(approval, view) }
    },
  )
}
