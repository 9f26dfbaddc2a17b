import type { Bundle, Resource } from '@medplum/fhirtypes'
import { z } from 'zod'

/** A resource as the hospital has it after a write. */
export interface Written {
  readonly type: string
  readonly id: string
  readonly version: number
  /** meta.lastUpdated */
  readonly at: string
}

/** `refused`: the hospital answered, and has not done it. `gone`: there was no answer, and it may have done it or not. */
export type Outcome<Value> =
  | { readonly kind: 'done'; readonly value: Value }
  | { readonly kind: 'refused'; readonly status: number; readonly text: string }
  | { readonly kind: 'gone'; readonly cause: string }

const TIMEOUT_MS = 15_000
const TEXT_MAX = 300
/** What a proxy says for a service that is away, and the service while its database is. */
const AWAY = new Set([502, 503, 504])

const saved = z.object({
  resourceType: z.string(),
  id: z.string(),
  meta: z.object({ versionId: z.string(), lastUpdated: z.string() }),
})
const answered = z.object({
  entry: z.array(z.object({ response: z.object({ location: z.string(), lastModified: z.string() }) })),
})
const found = z.object({ entry: z.array(z.object({ resource: z.object({ id: z.string() }).loose() })).default([]) })
const context = z.object({ user: z.string(), role: z.string(), facility: z.string().nullable() })
const known = z.object({ stream: z.string(), version: z.int().positive(), at: z.string() })
const registry = z.object({ facilities: z.array(z.object({ id: z.string(), active: z.boolean() })) })

/** The hospital's HTTP face, for one token. */
export class FhirClient {
  readonly #url: string
  readonly #token: string

  constructor(url: string, token: string) {
    this.#url = url.replace(/\/+$/, '')
    this.#token = token
  }

  async context(): Promise<Outcome<z.output<typeof context>>> {
    return await this.#ask({ path: '/facility-context', schema: context })
  }

  async facilities(): Promise<Outcome<z.output<typeof registry>>> {
    return await this.#ask({ path: '/facilities', schema: registry })
  }

  /** The first resources that match, as far as one page goes. */
  async search<Found extends Resource>(query: string): Promise<Outcome<(Found & { id: string })[]>> {
    const outcome = await this.#ask({ path: `/fhir/${query}`, schema: found })
    if (outcome.kind !== 'done') return outcome
    return { kind: 'done', value: outcome.value.entry.map(({ resource }) => resource as unknown as Found & { id: string }) }
  }

  async create(resource: Resource): Promise<Outcome<Written>> {
    return writtenOf(await this.#ask({ path: `/fhir/${resource.resourceType}`, method: 'POST', body: resource, schema: saved }))
  }

  /** Changes what is still at the version that was seen. */
  async update(resource: Resource & { readonly id: string }, version: number): Promise<Outcome<Written>> {
    const path = `/fhir/${resource.resourceType}/${resource.id}`
    return writtenOf(await this.#ask({ path, method: 'PUT', body: resource, ifMatch: `W/"${version}"`, schema: saved }))
  }

  /** Makes all of these or none. */
  async createAll(resources: readonly Resource[]): Promise<Outcome<readonly Written[]>> {
    const body: Bundle = {
      resourceType: 'Bundle',
      type: 'transaction',
      entry: resources.map((resource) => ({ resource, request: { method: 'POST', url: resource.resourceType } })),
    }
    const outcome = await this.#ask({ path: '/fhir', method: 'POST', body, schema: answered })
    if (outcome.kind !== 'done') return outcome
    return { kind: 'done', value: outcome.value.entry.map(({ response }) => locationOf(response)) }
  }

  /** Takes a patient who was referred here into this facility's own index. */
  async makeKnown(patient: string): Promise<Outcome<Written>> {
    const outcome = await this.#ask({ path: `/patients/${patient}/known-at`, method: 'POST', body: {}, schema: known })
    if (outcome.kind !== 'done') return outcome
    const { stream, version, at } = outcome.value
    const [type = '', id = ''] = stream.split('/')
    return { kind: 'done', value: { type, id, version, at } }
  }

  async #ask<Schema extends z.ZodType>(request: Request<Schema>): Promise<Outcome<z.output<Schema>>> {
    const { path, method = 'GET', body, ifMatch, schema } = request
    try {
      const response = await fetch(`${this.#url}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${this.#token}`,
          ...(body === undefined
            ? {}
            : { 'content-type': path.startsWith('/fhir') ? 'application/fhir+json' : 'application/json' }),
          ...(ifMatch === undefined ? {} : { 'if-match': ifMatch }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      })
      const text = await response.text()
      if (AWAY.has(response.status)) return { kind: 'gone', cause: `${response.status} ${text.slice(0, TEXT_MAX)}` }
      if (!response.ok) return { kind: 'refused', status: response.status, text: text.slice(0, TEXT_MAX) }
      return { kind: 'done', value: schema.parse(JSON.parse(text)) }
    } catch (error) {
      return { kind: 'gone', cause: causeOf(error) }
    }
  }
}

interface Request<Schema extends z.ZodType> {
  readonly path: string
  readonly method?: 'GET' | 'POST' | 'PUT'
  readonly body?: object
  readonly ifMatch?: string
  readonly schema: Schema
}

function writtenOf(outcome: Outcome<z.output<typeof saved>>): Outcome<Written> {
  if (outcome.kind !== 'done') return outcome
  const { resourceType, id, meta } = outcome.value
  return { kind: 'done', value: { type: resourceType, id, version: Number(meta.versionId), at: meta.lastUpdated } }
}

/** "Observation/7f1c…/_history/1" */
function locationOf({ location, lastModified }: { readonly location: string; readonly lastModified: string }): Written {
  const [type = '', id = '', , version = ''] = location.split('/').slice(-4)
  return { type, id, version: Number(version), at: lastModified }
}

/** fetch says "fetch failed", and why in its cause. */
function causeOf(error: unknown): string {
  const { message, cause } = error as {
    readonly message?: string
    readonly cause?: { readonly code?: string; readonly message?: string }
  }
  return cause?.code ?? cause?.message ?? message ?? String(error)
}
