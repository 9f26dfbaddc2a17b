import type { FastifyInstance } from 'fastify'
import type { TestContext } from 'node:test'
import { addUser, newUser } from '../../src/facilities/users.ts'
import { makeToken } from '../../src/http/authentication.ts'
import { buildServer } from '../../src/http/server.ts'
import { GROUP, testHospital, type TestHospital } from './hospital-database.ts'

/** JSON of any shape. */
export type Found = Readonly<Record<string, unknown>>

/** What is at "entry.0.resource.id" of an answer; undefined for what is not there. */
export function at(found: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => (value as Found | undefined)?.[key], found)
}

/** What the service answered; `body` is parsed JSON where it is JSON. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | number | undefined>>
  readonly body: Found
  readonly raw: Buffer
}

/** An array within an answer. */
export function listOf(found: unknown): Found[] {
  return (found ?? []) as Found[]
}

/** The resources of a bundle. */
export function resourcesOf({ body }: Answer): Found[] {
  return listOf(body['entry']).map((each) => each['resource'] as Found)
}

/** Where the next page is, as a path. */
export function nextOf({ body }: Answer): string | undefined {
  const link = listOf(body['link']).find(({ relation }) => relation === 'next')
  return link === undefined ? undefined : String(link['url']).replace(/^https?:\/\/[^/]+/, '')
}

export interface Request {
  readonly headers?: Readonly<Record<string, string>>
  /** An object is sent as JSON. */
  readonly body?: unknown
}

/** Asks as somebody: "GET /fhir/Patient". */
export type Ask = (request: string, options?: Request) => Promise<Answer>

export interface TestService extends TestHospital {
  readonly server: FastifyInstance
  /** Of a facility's clinician, or of the group's ('GROUP'). */
  readonly askAs: (facility: string) => Ask
}

/** A hospital with its service, and somebody at each facility and in the group who holds a token. */
export async function testService(
  t: TestContext,
  facilities: readonly string[] = ['FAC001', 'FAC002', 'FAC003'],
): Promise<TestService> {
  const hospital = await testHospital(t, facilities)
  const server = await buildServer({ database: hospital.database, filesDirectory: hospital.home })
  t.after(async () => server.close())
  const tokens = new Map<string, string>()
  for (const facility of [...facilities, 'GROUP']) {
    const id = `user-${facility.toLowerCase()}`
    const isGroup = facility === 'GROUP'
    const user = newUser.parse({ id, name: id, role: isGroup ? 'group' : 'clinician', facility: isGroup ? null : facility })
    await hospital.database.transaction(GROUP, async (transaction) => addUser(transaction, user))
    tokens.set(facility, await makeToken(hospital.admin, id))
  }
  return { ...hospital, server, askAs: (facility) => askWith(server, tokens.get(facility) ?? '') }
}

function askWith(server: FastifyInstance, token: string): Ask {
  return async (request, { headers = {}, body } = {}) => {
    const [method = 'GET', url = ''] = request.split(' ')
    const isText = typeof body === 'string' || Buffer.isBuffer(body)
    const answer = await server.inject({
      method: method as 'GET',
      url,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/fhir+json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { payload: isText ? body : JSON.stringify(body) }),
    })
    const isJson = /json/.test(String(answer.headers['content-type']))
    const text = answer.body
    return {
      status: answer.statusCode,
      headers: answer.headers,
      body: isJson && text !== '' ? JSON.parse(text) : text,
      raw: answer.rawPayload,
    }
  }
}
