import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Resource } from '@medplum/fhirtypes'
import { Refusal } from '../refusal.ts'
import { etagOf } from './rows.ts'

export const FHIR_JSON = 'application/fhir+json; charset=utf-8'
const FORMATS = new Set(['json', 'application/json', 'application/fhir+json', 'text/json'])
const ACCEPTED = new Set([...FORMATS, '*/*', 'application/*'])

/** Throws NOT_ACCEPTABLE for a client that wants anything but FHIR R4 as JSON. */
export function requireJsonWanted(request: FastifyRequest): void {
  const format = queryOf(request).get('_format')
  // A parameter wins over a header (https://hl7.org/fhir/R4/http.html#parameters); its plus may arrive as a space.
  const wanted = format === null ? (request.headers.accept ?? '*/*').split(',') : [format.replace(' ', '+')]
  const acceptable = wanted.some((each) => {
    const [type = '', ...parameters] = each.split(';').map((part) => part.trim().toLowerCase())
    const version = parameters.find((part) => part.startsWith('fhirversion='))
    const isRefused = parameters.some((part) => /^q=0(\.0*)?$/.test(part))
    return (
      (format === null ? ACCEPTED : FORMATS).has(type) &&
      !isRefused &&
      (version === undefined || /^fhirversion=4\.0(\.1)?$/.test(version))
    )
  })
  if (acceptable) return
  throw new Refusal('NOT_ACCEPTABLE', `"${wanted.join(',').slice(0, 100)}" is not how this service answers`, {
    hint: 'ask for application/fhir+json; fhirVersion=4.0',
  })
}

export function queryOf(request: FastifyRequest): URLSearchParams {
  const at = request.url.indexOf('?')
  return new URLSearchParams(at === -1 ? '' : request.url.slice(at + 1))
}

/** Where the face is, as the client reached it. */
export function baseOf(request: FastifyRequest): string {
  return `${request.protocol}://${request.host}/fhir`
}

/** What a client prefers (RFC 7240, https://hl7.org/fhir/R4/http.html#ops). */
export interface Preference {
  readonly isStrict: boolean
  readonly answer: 'minimal' | 'representation' | 'OperationOutcome' | undefined
}

export function preferenceOf(request: FastifyRequest): Preference {
  const header = [request.headers['prefer'] ?? []].flat().join(',')
  const answer = /(?:^|[,;\s])return=(minimal|representation|OperationOutcome)\b/.exec(header)?.[1]
  return { isStrict: /(?:^|[,;\s])handling=strict\b/.test(header), answer: answer as Preference['answer'] }
}

/** The version of If-Match, which FHIR writes as W/"3". Throws BAD_REQUEST for any other. */
export function versionOfIfMatch(text: string | undefined): number | undefined {
  if (text === undefined || text === '*') return undefined
  const version = /^(?:W\/)?"?([1-9]\d{0,8})"?$/.exec(text.trim())?.[1]
  if (version === undefined) {
    throw new Refusal('BAD_REQUEST', `If-Match is "${text.slice(0, 60)}", which is no version`, {
      hint: 'send the ETag that you have read, as W/"3"',
    })
  }
  return Number(version)
}

/** One resource with its version in the headers; nothing but the headers when the client has this version. */
export async function sendResource(request: FastifyRequest, reply: FastifyReply, resource: Resource): Promise<void> {
  const { versionId = '1', lastUpdated = '' } = resource.meta ?? {}
  reply.header('ETag', etagOf(versionId)).header('Last-Modified', new Date(lastUpdated).toUTCString())
  if (isKnown(request, versionId, lastUpdated)) await reply.code(304).send()
  else await sendJson(reply, resource)
}

export async function sendJson(reply: FastifyReply, resource: Resource): Promise<void> {
  await reply.type(FHIR_JSON).send(JSON.stringify(resource))
}

function isKnown({ headers }: FastifyRequest, version: string, lastUpdated: string): boolean {
  const tags = headers['if-none-match']
  if (tags !== undefined) {
    return tags.split(',').some((each) => each.trim() === '*' || each.trim().replace(/^W\//, '') === `"${version}"`)
  }
  const since = Date.parse(headers['if-modified-since'] ?? '')
  // The header has no milliseconds.
  return !Number.isNaN(since) && Math.floor(Date.parse(lastUpdated) / 1000) * 1000 <= since
}
