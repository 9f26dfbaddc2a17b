import { Refusal } from '../refusal.ts'

/** Runs a step for an entry of a bundle: what it refuses is said of that entry, Patient.name[0] as Bundle.entry[3].resource.name[0]. */
export async function within<Result>(place: string, step: () => Promise<Result>): Promise<Result> {
  try {
    return await step()
  } catch (error) {
    throw error instanceof Refusal ? placed(error, place) : error
  }
}

function placed(refusal: Refusal, place: string): Refusal {
  const { code, message, hint, issue, expression, others } = refusal
  return new Refusal(code, message, {
    ...(hint === undefined ? {} : { hint }),
    ...(issue === undefined ? {} : { issue }),
    expression: expressionAt(expression, place),
    others: others.map((each) => placed(each, place)),
    cause: refusal,
  })
}

function expressionAt(expression: string | undefined, place: string): string {
  if (expression === undefined || expression === '') return place
  return expression.startsWith('Bundle.entry[') ? expression : expression.replace(/^[A-Z][A-Za-z]*/, `${place}.resource`)
}
