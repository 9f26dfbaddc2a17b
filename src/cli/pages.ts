import type { z } from 'zod'
import { Failure } from '../errors.ts'
import type { ControlPlaneClient } from './control-plane-client.ts'

const PAGE = 500
const PAGES_MAX = 200

/** All of a list that comes in pages. Throws CONTROL_PLANE_UNREACHABLE where it never ends. */
export async function listAll<T>(
  client: ControlPlaneClient,
  path: string,
  schema: z.ZodType<{ readonly items: readonly T[]; readonly next: string | null }>,
): Promise<T[]> {
  const all: T[] = []
  let next: string | null = ''
  for (let pages = 0; pages < PAGES_MAX; pages += 1) {
    const cursor: string = next === '' ? '' : `&cursor=${encodeURIComponent(next)}`
    const page: { readonly items: readonly T[]; readonly next: string | null } = await client.ask(
      `GET ${path}${path.includes('?') ? '&' : '?'}limit=${PAGE}${cursor}`,
      schema,
    )
    all.push(...page.items)
    next = page.next
    if (next === null) return all
  }
  throw new Failure('CONTROL_PLANE_UNREACHABLE', `the list at ${path} has more than ${PAGE * PAGES_MAX} entries`)
}
