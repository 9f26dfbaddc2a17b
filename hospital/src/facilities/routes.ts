import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Context } from '../database/database.ts'
import type { RouteOptions } from '../http/server.ts'
import { Refusal } from '../refusal.ts'
import { newFacility, onboardFacility } from './onboard.ts'
import { addUser, newUser } from './users.ts'

/**
 * The registry: GET /facilities, GET /facilities/:id, GET /facility-context; and for the group's people, to onboard a facility, POST /facilities and
 * POST /users. A user asks with a token of `hospital token`.
 */
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
    const context = requireGroup(request)
    const facility = newFacility.parse(request.body)
    const onboarded = database.transaction(context, async (transaction) => onboardFacility(transaction, facility))
    await onboarded.catch((error: unknown) => refuseTaken(error, `there is a facility "${facility.id}" already`))
    return await reply.code(201).header('Location', `/facilities/${facility.id}`).send(facility)
  })

  server.post('/users', async (request, reply) => {
    const context = requireGroup(request)
    const user = newUser.parse(request.body)
    if ((user.role === 'group') !== (user.facility === null)) {
      throw new Refusal('INVALID', 'people of the group have no facility, and all others have one', { expression: 'facility' })
    }
    const added = database.transaction(context, async (transaction) => addUser(transaction, user))
    await added.catch((error: unknown) => refuseTaken(error, `there is a user "${user.id}" already`))
    return await reply.code(201).send(user)
  })

  server.get('/facility-context', async (request) => {
    const { user, role, context } = request.requester
    return { user, role, facility: context.kind === 'facility' ? context.facility : null }
  })
}

function requireGroup({ requester }: FastifyRequest): Context {
  if (requester.context.kind === 'group') return requester.context
  throw new Refusal('FORBIDDEN', "only the group's people onboard facilities and their users")
}

function refuseTaken(error: unknown, message: string): never {
  if (!(error instanceof Refusal) || error.code !== 'VERSION_CONFLICT') throw error
  throw new Refusal('CONFLICT', message, { expression: 'id', cause: error })
}
