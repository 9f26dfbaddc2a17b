import type { FastifyInstance } from 'fastify'
import type { RouteOptions } from '../http/server.ts'
import { Refusal } from '../refusal.ts'
import { newFacility, onboardFacility } from './onboard.ts'

/** The registry: GET /facilities, GET /facilities/:id, POST /facilities (the group's people), GET /facility-context. */
export async function facilityRoutes(server: FastifyInstance, { database }: RouteOptions): Promise<void> {
  server.get('/facilities', async (request) => {
    const facilities = await database.transaction(request.requester.context, async ({ sql }) =>
      sql.selectFrom('facilities').select(['id', 'name', 'lga', 'type', 'active']).orderBy('id').execute(),
    )
    return { facilities }
  })

  server.get<{ Params: { id: string } }>('/facilities/:id', async (request) => {
    const facility = await database.transaction(request.requester.context, async ({ sql }) =>
      sql
        .selectFrom('facilities')
        .select(['id', 'name', 'lga', 'type', 'active'])
        .where('id', '=', request.params.id)
        .executeTakeFirst(),
    )
    if (facility === undefined) throw new Refusal('NOT_FOUND', `there is no facility "${request.params.id}"`)
    return facility
  })

  server.post('/facilities', async (request, reply) => {
    const { context } = request.requester
    if (context.kind !== 'group') throw new Refusal('FORBIDDEN', "only the group's people onboard a facility")
    const facility = newFacility.parse(request.body)
    await database
      .transaction(context, async (transaction) => onboardFacility(transaction, facility))
      .catch((error: unknown) => {
        if (!(error instanceof Refusal) || error.code !== 'VERSION_CONFLICT') throw error
        throw new Refusal('CONFLICT', `there is a facility "${facility.id}" already`, { expression: 'id', cause: error })
      })
    return await reply.code(201).header('Location', `/facilities/${facility.id}`).send(facility)
  })

  server.get('/facility-context', async (request) => {
    const { user, role, context } = request.requester
    return { user, role, facility: context.kind === 'facility' ? context.facility : null }
  })
}
