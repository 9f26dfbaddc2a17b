import { Failure } from '../../errors.ts'

/** One thing that a backup, a stream or a restore needs. A check that could not be made is "not proven". */
export interface CheckItem {
  readonly name: string
  readonly verdict: 'passed' | 'failed' | 'not proven'
  readonly expected: string
  readonly found: string
  readonly hint: string
}

export function fact(
  name: string,
  expected: string,
  found: string,
  ...[good, hint, otherwise = 'failed']: [(found: string) => boolean, string, ('failed' | 'not proven')?]
): CheckItem {
  const verdict = good(found) ? 'passed' : otherwise
  return { name, expected, found, verdict, hint: verdict === 'passed' ? '' : hint }
}

export type Judgement = Pick<CheckItem, 'verdict' | 'found' | 'hint'>

export const passed = (found: string): Judgement => ({ verdict: 'passed', found, hint: '' })
export const failed = (found: string, hint: string): Judgement => ({ verdict: 'failed', found, hint })
export const notProven = (found: string, hint: string): Judgement => ({ verdict: 'not proven', found, hint })

/** Makes a check: what it throws is what was found. */
export async function judge(name: string, expected: string, check: () => Promise<Judgement>): Promise<CheckItem> {
  try {
    return { name, expected, ...(await check()) }
  } catch (error) {
    const hint = error instanceof Failure ? (error.hint ?? '') : ''
    return { name, expected, ...failed(error instanceof Error ? error.message : String(error), hint) }
  }
}
