import type { Resource } from '@medplum/fhirtypes'
import { Refusal } from '../refusal.ts'
import { loadDefinitions, type Definitions } from './definitions/definitions.ts'
import { problem, textOf, type Problem } from './problem-list.ts'
import { walk, type Findings } from './walk.ts'

/**
 * Everything that is wrong with a resource by FHIR's own rules, and the literal references in it. Throws BAD_REQUEST for what is no resource of this
 * type at all. `prefix` is where it stands, when it stands within a bundle.
 */
export async function validate(content: unknown, type: string): Promise<Findings> {
  const definitions = await loadDefinitions()
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw new Refusal('BAD_REQUEST', `the body is no ${type}`, { hint: 'send one resource as a JSON object', expression: type })
  }
  const found = (content as { resourceType?: unknown }).resourceType
  if (found !== type) {
    throw new Refusal(
      'BAD_REQUEST',
      `the body is ${found === undefined ? 'no resource' : `a ${textOf(found)}`}, and a ${type} is wanted`,
      {
        expression: `${type}.resourceType`,
      },
    )
  }
  const { problems, references } = walk(definitions, content as Record<string, unknown>, type)
  const known = new Set(problems.map(({ path }) => path))
  // Of what one of the two has found already the other says nothing.
  const more = standardProblems(definitions, content as Resource, problems).filter(({ path }) => !known.has(path))
  return { problems: [...problems, ...more], references }
}

function standardProblems(definitions: Definitions, resource: Resource, before: readonly Problem[]): Problem[] {
  try {
    return definitions.issuesOf(resource).map(({ code, details, expression, severity }) =>
      // Its warnings are errors of the standard that it lets pass for the sake of old data.
      problem(expression?.[0] ?? resource.resourceType, issueOf(code), details?.text ?? `${severity} without a text`),
    )
  } catch (error) {
    // It is made for what has the right shape; of anything else we know more.
    if (before.length > 0) return []
    throw error
  }
}

function issueOf(code: string | undefined): Problem['issue'] {
  return code === 'structure' || code === 'invariant' || code === 'value' ? code : 'invalid'
}
