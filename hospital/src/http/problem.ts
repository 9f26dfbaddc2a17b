import type { OperationOutcome, OperationOutcomeIssue } from '@medplum/fhirtypes'
import { REFUSALS, type Refusal } from '../refusal.ts'

/** Refusals as FHIR says them (https://hl7.org/fhir/R4/operationoutcome.html). */
export function operationOutcome(refusals: readonly Refusal[]): OperationOutcome {
  return {
    resourceType: 'OperationOutcome',
    issue: refusals
      .flatMap((refusal) => [refusal, ...refusal.others])
      .map(({ code, message, hint, expression, issue }) => ({
        severity: 'error',
        code: (issue ?? REFUSALS[code].issue) as OperationOutcomeIssue['code'],
        details: { text: hint === undefined ? message : `${message} (${hint})` },
        ...(expression === undefined || expression === '' ? {} : { expression: [expression] }),
      })),
  }
}

/** A refusal as RFC 9457 says it. */
export function problemDetails(refusal: Refusal, status: number): object {
  const { code, message, hint, expression } = refusal
  return {
    type: 'about:blank',
    title: code.toLowerCase().replaceAll('_', ' '),
    status,
    detail: message,
    code,
    ...(hint === undefined ? {} : { hint }),
    ...(expression === undefined || expression === '' ? {} : { field: expression }),
  }
}
