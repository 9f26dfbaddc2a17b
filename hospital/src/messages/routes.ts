import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import type { Requester } from '../http/authentication.ts'
import type { RouteOptions } from '../http/server.ts'
import { Refusal } from '../refusal.ts'
import { engageHold, readHold, releaseHold } from './hold.ts'

const holdRequest = z.strictObject({ reason: z.string().trim().min(1).max(300) })
const releaseRequest = z.strictObject({ reason: z.string().trim().min(1).max(300).optional() })

/** GET /outbound for everybody, of what they see; POST /outbound/hold and /outbound/release for the group's people, in their own name. */
export async function outboundRoutes(server: FastifyInstance, { database }: RouteOptions): Promise<void> {
  server.get('/outbound', async (request) =>
    database.transaction(request.requester.context, async (transaction) => {
      const messages = await transaction.sql
        .selectFrom('messages')
        .select(['facility', 'kind', 'status', (each) => each.fn.countAll<string>().as('messages')])
        .groupBy(['facility', 'kind', 'status'])
        .orderBy('facility')
        .orderBy('kind')
        .orderBy('status')
        .execute()
      const hold = (await readHold(transaction)) ?? { held: false }
      return { hold, messages: messages.map((each) => ({ ...each, messages: Number(each.messages) })) }
    }),
  )

  server.post('/outbound/hold', async (request) => {
    const { context } = groupOnly(request.requester)
    const { reason } = holdRequest.parse(request.body)
    return await database.transaction(context, async (transaction) =>
      engageHold(transaction, { reason, person: request.requester.user }),
    )
  })

  server.post('/outbound/release', async (request) => {
    const { context } = groupOnly(request.requester)
    const { reason } = releaseRequest.parse(request.body ?? {})
    return await database.transaction(context, async (transaction) =>
      releaseHold(transaction, { ...(reason === undefined ? {} : { reason }), person: request.requester.user }),
    )
  })
}

function groupOnly(requester: Requester): Requester {
  if (requester.context.kind === 'group') return requester
  throw new Refusal('FORBIDDEN', "only the group's people hold and release what leaves the hospital")
}
