import type { InternalTypeSchema } from '@medplum/core'
import type { OperationOutcomeIssue, Resource, StructureDefinition } from '@medplum/fhirtypes'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'

const EXTRACT = new URL('fhir-r4.json.gz', import.meta.url)

interface Extract {
  readonly structureDefinitions: StructureDefinition[]
  readonly valueSets: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>
  readonly searchParameters: Readonly<Record<string, Readonly<Record<string, StandardSearchParameter>>>>
}

export interface StandardSearchParameter {
  readonly type: 'date' | 'number' | 'quantity' | 'reference' | 'string' | 'token' | 'uri' | 'composite' | 'special'
  readonly definition: string
}

/** FHIR R4's own definitions, as far as this hospital uses them. */
export interface Definitions {
  /** Throws for a type that the extract does not have. */
  schemaOf(type: string): InternalTypeSchema
  /** Whether the extract has the full definition of a resource type, and not only its name. */
  isDefined(type: string): boolean
  /** Each code system of a value set with its codes; undefined for what is not listed. */
  codesOf(valueSet: string): ReadonlyMap<string, ReadonlySet<string>> | undefined
  searchParameter(type: string, name: string): StandardSearchParameter | undefined
  /** What @medplum/core finds: cardinality, types and invariants. */
  issuesOf(resource: Resource): OperationOutcomeIssue[]
}

let loaded: Promise<Definitions> | undefined

/** Read at the first use, and then kept: a command that asks nothing of FHIR does not wait for it. */
export async function loadDefinitions(): Promise<Definitions> {
  loaded ??= load()
  return await loaded
}

/** Base64 of the largest body that the service takes. */
const BASE64_BYTES_MAX = 16 * 1024 * 1024

async function load(): Promise<Definitions> {
  const core = await import('@medplum/core')
  const text = await promisify(gunzip)(await readFile(EXTRACT))
  const { structureDefinitions, valueSets, searchParameters } = JSON.parse(text.toString()) as Extract
  core.indexStructureDefinitionBundle(structureDefinitions)
  const defined = new Set(structureDefinitions.map(({ name }) => name))
  const codes = new Map(Object.entries(valueSets).map(([url, systems]) => [url, setsOf(systems)]))
  return {
    schemaOf: (type) => core.getDataType(type),
    isDefined: (type) => defined.has(type),
    codesOf: (valueSet) => codes.get(valueSet.split('|')[0] ?? ''),
    searchParameter: (type, name) => searchParameters[type]?.[name] ?? searchParameters['Resource']?.[name],
    issuesOf: (resource) => {
      try {
        return core.validateResource(resource, { base64BinaryMaxBytes: BASE64_BYTES_MAX })
      } catch (error) {
        if (error instanceof core.OperationOutcomeError) return error.outcome.issue
        throw error
      }
    },
  }
}

function setsOf(systems: Readonly<Record<string, readonly string[]>>): ReadonlyMap<string, ReadonlySet<string>> {
  return new Map(Object.entries(systems).map(([system, codes]) => [system, new Set(codes)]))
}
