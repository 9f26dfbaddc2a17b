import type { CapabilityStatement, CapabilityStatementRestResource } from '@medplum/fhirtypes'
import { loadDefinitions, type Definitions } from './definitions/definitions.ts'
import { SERVED_TYPES, type ServedType } from './served-types.ts'

/** When what this statement says changed last. */
const CHANGED = '2026-11-21'

/** What the face can do, made from the tables that its routes and queries are made from. */
export async function capabilityStatement(base: string): Promise<CapabilityStatement> {
  const definitions = await loadDefinitions()
  return {
    resourceType: 'CapabilityStatement',
    status: 'active',
    date: CHANGED,
    kind: 'instance',
    implementation: { description: 'The reference hospital: several facilities of one group', url: base },
    fhirVersion: '4.0.1',
    format: ['application/fhir+json', 'json'],
    rest: [
      {
        mode: 'server',
        security: {
          description:
            "A bearer token, which says for which facility its holder works. Other facilities' resources do not exist for it.",
        },
        resource: [...SERVED_TYPES.values()].map((served) => resourceOf(served, definitions)),
        interaction: [{ code: 'transaction' }, { code: 'batch' }],
      },
    ],
  }
}

function resourceOf({ name, written, search }: ServedType, definitions: Definitions): CapabilityStatementRestResource {
  const reading = ['read', 'vread', 'history-instance', 'search-type'] as const
  return {
    type: name,
    profile: `http://hl7.org/fhir/StructureDefinition/${name}`,
    interaction: [...reading, ...(written ? (['create', 'update'] as const) : [])].map((code) => ({ code })),
    versioning: 'versioned-update',
    readHistory: true,
    updateCreate: false,
    conditionalCreate: written,
    conditionalRead: 'full-support',
    referencePolicy: ['literal', 'local', 'enforced'],
    searchParam: Object.keys(search).map((parameter) => {
      const standard = definitions.searchParameter(name, parameter)
      return {
        name: parameter,
        type: standard?.type ?? 'special',
        ...(standard === undefined ? {} : { definition: standard.definition }),
      }
    }),
    ...(name === 'Patient'
      ? { operation: [{ name: 'everything', definition: 'http://hl7.org/fhir/OperationDefinition/Patient-everything' }] }
      : {}),
  }
}
