import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { accessReviewSchema, reviewBody } from '../../api/authority-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import type { Authority } from '../authority/authority.ts'
import type { RouteOptions } from './route-options.ts'

const PEOPLE_AT_ONCE = 500
const failures = { '4xx': problemSchema, '5xx': problemSchema }

/** The review of access: who may do what, who was here, and who got copies. */
export const reviewRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { authority }) => {
  server.get(
    '/access-review',
    {
      config: { action: 'people.read' },
      schema: { summary: 'What a review of access looks at', response: { 200: accessReviewSchema, ...failures } },
    },
    async () => reviewDocument(authority),
  )

  server.post(
    '/access-review',
    {
      config: { action: 'review.record' },
      schema: {
        summary: 'Say that access was reviewed, and what was found: the trail keeps it',
        body: reviewBody,
        response: { 204: z.null(), ...failures },
      },
    },
    // The guard notes it, as every change: that is the record.
    async (_, reply) => await reply.code(204).send(null),
  )
}

async function reviewDocument({ accounts, access, reviews }: Authority): Promise<z.infer<typeof accessReviewSchema>> {
  const { last, due } = await access.dates()
  const people: z.infer<typeof accessReviewSchema>['people'] = []
  for (let behind = ''; ;) {
    const page = await accounts.people.list({ behind, limit: PEOPLE_AT_ONCE })
    for (const person of page) {
      const tokens = (await accounts.tokens.list(person.id)).filter(({ revokedAt }) => revokedAt === null)
      people.push({
        id: person.id,
        name: person.name,
        grants: [...person.grants],
        state: person.state,
        madeBy: person.madeBy,
        madeAt: person.madeAt.toISOString(),
        factors: person.factors,
        lastSeenAt: person.lastSeenAt?.toISOString() ?? null,
        isAway: person.state === 'active' && access.isAway(person.lastSeenAt, person.madeAt),
        tokens: tokens.length,
      })
    }
    if (page.length < PEOPLE_AT_ONCE) break
    behind = page.at(-1)!.name
  }
  return {
    last: last?.toISOString() ?? null,
    due: due?.toISOString() ?? null,
    people,
    copies: (await access.copies(last)).map((copy) => ({ ...copy, at: copy.at.toISOString() })),
    alone: reviews.all.filter(({ at, review }) => review === null || last === null || Date.parse(at) >= last.getTime()),
  }
}
