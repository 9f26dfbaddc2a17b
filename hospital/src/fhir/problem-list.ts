import { Refusal, type RefusalCode } from '../refusal.ts'

/** One thing that is wrong with a resource. */
export interface Problem {
  /** FHIRPath, as in Patient.name[0].family. */
  readonly path: string
  readonly message: string
  /** http://hl7.org/fhir/issue-type */
  readonly issue: 'structure' | 'required' | 'value' | 'invariant' | 'code-invalid' | 'not-found' | 'business-rule' | 'invalid'
  readonly hint?: string
}

export function problem(path: string, issue: Problem['issue'], message: string, hint?: string): Problem {
  return { path, issue, message, ...(hint === undefined ? {} : { hint }) }
}

/** Refuses all that was found at once: whoever repairs one problem should not meet the next one only then. */
export function refuseAll(problems: readonly Problem[], code: RefusalCode = 'INVALID'): void {
  const [first, ...others] = problems.map(
    ({ path, message, issue, hint }) =>
      new Refusal(code, message, { expression: path, issue, ...(hint === undefined ? {} : { hint }) }),
  )
  if (first === undefined) return
  throw new Refusal(code, first.message, {
    ...(first.hint === undefined ? {} : { hint: first.hint }),
    ...(first.expression === undefined ? {} : { expression: first.expression }),
    ...(first.issue === undefined ? {} : { issue: first.issue }),
    others,
  })
}

/** A value as a message shows it. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing')
}
