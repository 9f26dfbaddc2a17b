import type { InternalSchemaElement, InternalTypeSchema } from '@medplum/core'
import type { Definitions } from './definitions/definitions.ts'
import { problem, textOf, type Problem } from './problem-list.ts'

type Json = Readonly<Record<string, unknown>>

/** A literal reference, "Patient/7f1c…", and where it stands. */
export interface FoundReference {
  readonly path: string
  /** The path without indexes, as Observation.subject. */
  readonly element: string
  readonly type: string
  readonly id: string
}

/** What a walk through a resource found. */
export interface Findings {
  readonly problems: Problem[]
  readonly references: FoundReference[]
}

/** A property of a type, as JSON names it: valueQuantity is one of value[x]. */
interface Property {
  readonly element: InternalSchemaElement
  readonly name: string
  readonly type: string
  /** Of which value[x] it is one. */
  readonly choice: string | undefined
}

const DEPTH_MAX = 40
const DATE = '([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01])'
const TIME = 'T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\\.[0-9]+)?(Z|[+-]((0[0-9]|1[0-3]):[0-5][0-9]|14:00))'
/** @medplum/core takes times without minutes or without a zone, which FHIR does not have. */
const FORMATS = new Map([
  ['date', new RegExp(`^${DATE})?)?$`)],
  ['dateTime', new RegExp(`^${DATE}(${TIME})?)?)?$`)],
  ['instant', new RegExp(`^${DATE}${TIME}))$`)],
])
const LITERAL = /^([A-Z][A-Za-z]+)\/([A-Za-z0-9\-.]{1,64})$/
const PROFILE = 'http://hl7.org/fhir/StructureDefinition/'

/**
 * Looks at what @medplum/core does not: properties that do not exist, nulls and emptiness, more than one type of a choice, codes of required
 * bindings, the types of references' targets, and text that PostgreSQL cannot keep.
 */
export function walk(definitions: Definitions, resource: Json, type: string): Findings {
  const walker = new Walker(definitions, resource)
  walker.object(resource, definitions.schemaOf(type), { path: type, element: type, depth: 0 })
  return { problems: walker.problems, references: walker.references }
}

interface Place {
  readonly path: string
  readonly element: string
  readonly depth: number
}

class Walker implements Findings {
  readonly problems: Problem[] = []
  readonly references: FoundReference[] = []
  readonly #definitions: Definitions
  readonly #contained: ReadonlySet<string>

  constructor(definitions: Definitions, root: Json) {
    this.#definitions = definitions
    const contained = Array.isArray(root['contained']) ? (root['contained'] as unknown[]) : []
    this.#contained = new Set(contained.flatMap((each) => (isObject(each) && typeof each['id'] === 'string' ? [each['id']] : [])))
  }

  object(value: Json, schema: InternalTypeSchema, place: Place): void {
    if (place.depth > DEPTH_MAX) {
      this.#add(place, 'structure', `nested more than ${DEPTH_MAX} deep`)
      return
    }
    const properties = propertiesOf(schema)
    const chosen = new Map<string, string>()
    for (const [key, content] of Object.entries(value)) {
      if (key === 'resourceType' && schema.kind === 'resource') continue
      const property = properties.get(key)
      const at = { path: `${place.path}.${key}`, element: `${place.element}.${property?.name ?? key}`, depth: place.depth + 1 }
      if (property === undefined) this.#add(at, 'structure', `${schema.name} has no property "${key}"`)
      else {
        this.#choose(chosen, property, key, at)
        this.#property(content, property, at, value[key.startsWith('_') ? key.slice(1) : `_${key}`])
      }
    }
    if (schema.name === 'Reference') this.#reference(value, place)
  }

  /** Of value[x] only one may be there; _valueString belongs to valueString. */
  #choose(chosen: Map<string, string>, { choice }: Property, key: string, at: Place): void {
    if (choice === undefined) return
    const name = key.startsWith('_') ? key.slice(1) : key
    const before = chosen.get(choice)
    if (before !== undefined && before !== name) this.#add(at, 'structure', `only one of ${before} and ${name} may be there`)
    chosen.set(choice, name)
  }

  #property(content: unknown, property: Property, at: Place, partner: unknown): void {
    if (!Array.isArray(content)) {
      this.#value(content, property, at)
      return
    }
    if (content.length === 0) this.#add(at, 'structure', 'an empty array is left out instead')
    for (const [index, each] of content.entries()) {
      const partnered = Array.isArray(partner) && partner[index] !== undefined && partner[index] !== null
      if (each !== null || !partnered) this.#value(each, property, { ...at, path: `${at.path}[${index}]` })
    }
  }

  #value(value: unknown, { element, type }: Pick<Property, 'element' | 'type'>, at: Place): void {
    if (value === null) this.#add(at, 'structure', 'null is left out instead')
    else if (typeof value === 'string') this.#text(value, type, at)
    else if (isObject(value)) this.#complex(value, type, at)
    else if (Array.isArray(value)) this.#add(at, 'structure', 'an array within an array does not exist in FHIR')
    else if (!isPrimitive(type)) this.#add(at, 'structure', `a ${type} is an object`)
    if (element.binding?.strength === 'required') this.#binding(value, element.binding.valueSet ?? '', at)
    if (type === 'Reference' && isObject(value)) this.#target(value, element, at)
  }

  #text(value: string, type: string, at: Place): void {
    if (!isPrimitive(type)) this.#add(at, 'structure', `a ${type} is an object`)
    else if (value === '') this.#add(at, 'value', 'an empty text is left out instead')
    else if (value.includes('\u0000') || !value.isWellFormed()) this.#add(at, 'value', 'the text holds what is no character')
    else if (FORMATS.get(type)?.test(value) === false) this.#add(at, 'value', `"${value.slice(0, 60)}" is no ${type}`)
  }

  #complex(value: Json, type: string, at: Place): void {
    if (isPrimitive(type)) {
      this.#add(at, 'structure', `a ${type} is no object`)
    } else if (Object.keys(value).length === 0) {
      this.#add(at, 'structure', 'an empty object is left out instead')
    } else if (type === 'Resource') {
      this.#inner(value, at)
    } else {
      this.object(value, this.#definitions.schemaOf(type), at)
    }
  }

  /** A resource within a resource. */
  #inner(value: Json, at: Place): void {
    const type = value['resourceType']
    if (typeof type === 'string' && this.#definitions.isDefined(type)) this.object(value, this.#definitions.schemaOf(type), at)
    else this.#add(at, 'structure', `a contained ${textOf(type)} is nothing that the hospital knows`)
  }

  #binding(value: unknown, valueSet: string, at: Place): void {
    const codes = this.#definitions.codesOf(valueSet)
    if (codes === undefined) return
    if (typeof value === 'string') {
      if (![...codes.values()].some((each) => each.has(value))) this.#unknownCode(value, valueSet, at)
      return
    }
    if (!isObject(value)) return
    const codings = Array.isArray(value['coding']) ? (value['coding'] as unknown[]) : [value]
    const known = codings.some((each) => isObject(each) && codes.get(textOf(each['system']))?.has(textOf(each['code'])) === true)
    if (!known) this.#unknownCode(JSON.stringify(codings), valueSet, at)
  }

  #unknownCode(value: string, valueSet: string, at: Place): void {
    this.#add(at, 'code-invalid', `"${value.slice(0, 100)}" is no code of ${valueSet}`)
  }

  /** Where a reference leads. What is behind it is looked up later, by somebody who sees the rows. */
  #reference({ reference, type }: Json, at: Place): void {
    if (typeof reference !== 'string' || reference === '') return
    const place = { ...at, path: `${at.path}.reference` }
    if (reference.startsWith('#')) {
      if (reference !== '#' && !this.#contained.has(reference.slice(1)))
        this.#add(place, 'not-found', `nothing contained has the id "${reference.slice(1)}"`)
      return
    }
    const [, target, id] = LITERAL.exec(reference) ?? []
    if (target === undefined || id === undefined) {
      this.#add(
        place,
        'value',
        `"${reference.slice(0, 100)}" leads nowhere in this hospital`,
        'refer by "Type/id", or by identifier or display alone',
      )
    } else if (type !== undefined && type !== target) {
      this.#add(place, 'invariant', `the reference leads to a ${target}, and says that it is a ${textOf(type)}`)
    } else {
      this.references.push({ path: place.path, element: at.element, type: target, id })
    }
  }

  #target({ reference }: Json, element: InternalSchemaElement, at: Place): void {
    const target = typeof reference === 'string' ? LITERAL.exec(reference)?.[1] : undefined
    const allowed = element.type.find(({ code }) => code === 'Reference')?.targetProfile ?? []
    if (target === undefined || allowed.length === 0 || allowed.includes(`${PROFILE}Resource`)) return
    if (!allowed.includes(PROFILE + target)) {
      const names = allowed.map((each) => each.replace(PROFILE, '')).join(', ')
      this.#add(at, 'value', `a reference to a ${target} is not possible here, only to ${names}`)
    }
  }

  #add({ path }: Place, issue: Problem['issue'], message: string, hint?: string): void {
    this.problems.push(problem(path, issue, message, hint))
  }
}

const PROPERTIES = new WeakMap<InternalTypeSchema, ReadonlyMap<string, Property>>()

/** All properties that JSON may have for a type; made once for each. */
function propertiesOf(schema: InternalTypeSchema): ReadonlyMap<string, Property> {
  const known = PROPERTIES.get(schema)
  if (known !== undefined) return known
  const found = new Map<string, Property>()
  for (const [key, element] of Object.entries(schema.elements)) {
    const name = key.replace('[x]', '')
    const choice = key.endsWith('[x]') ? name : undefined
    for (const { code } of element.type) {
      const json = choice === undefined ? name : name + code.charAt(0).toUpperCase() + code.slice(1)
      found.set(json, { element, name, type: code, choice })
      // What says more of a primitive: its id and extensions.
      if (isPrimitive(code))
        found.set(`_${json}`, { element: { ...element, binding: NO_BINDING }, name, type: 'Element', choice })
    }
  }
  PROPERTIES.set(schema, found)
  return found
}

const NO_BINDING = { strength: 'example' } as const

function isPrimitive(type: string): boolean {
  return /^[a-z]/.test(type)
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
