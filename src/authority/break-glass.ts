import { createHash, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto'
import { hostname, userInfo } from 'node:os'
import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { listAuthority, putAuthority, readAuthority } from '../repository/authority-objects.ts'
import type { Repository } from '../repository/repository.ts'

// A sealed code that works once, with the repository and its key alone (docs/authority.md, "Break-glass").

const HOLDS_MS = 4 * 3_600_000
/** Letters and digits that nobody takes for another when they read them aloud. */
const LETTERS = 'ABCDEFGHJKMNPQRSTVWXYZ23456789AB'
const GROUPS = 6
const GROUP = 5

const madeSchema = z.object({ format: z.literal(1), id: z.uuid(), at: z.string(), digest: z.string().regex(/^[0-9a-f]{64}$/) })
const usedSchema = z.object({
  format: z.literal(1),
  id: z.string(),
  at: z.string(),
  until: z.iso.datetime({ precision: 3 }),
  run: z.string(),
})

/** A new code of 145 bits or more, and what of it may be kept. The code exists nowhere else: print it, seal it. */
export function newBreakGlass(): { readonly id: string; readonly code: string; readonly digest: string } {
  const letters = [...randomBytes(GROUPS * GROUP)].map((byte) => LETTERS[byte % 32]!)
  const groups = Array.from({ length: GROUPS }, (_, at) => letters.slice(at * GROUP, (at + 1) * GROUP).join(''))
  const code = groups.join('-')
  return { id: randomUUID(), code, digest: digestOfCode(code) }
}

/** Makes a code good. The ones before stay good: each was sealed by somebody. */
export async function keepBreakGlass(
  repositories: readonly Repository[],
  { id, digest }: { readonly id: string; readonly digest: string },
  approval: string,
  clock: Clock,
): Promise<void> {
  if (repositories.length === 0) throw new Failure('STORAGE_UNREACHABLE', 'there is no repository to keep the code in')
  const made = { format: 1, id, at: new Date(clock.now()).toISOString(), digest, approval }
  for (const repository of repositories) await putAuthority(repository, `break-glass/${id}.made`, made)
}

/**
 * Opens the seal: for four hours, for restores to new places. The first use takes it; after that the same code goes on until its time is over. Throws APPROVAL_INVALID.
 */
export async function useBreakGlass(repository: Repository, code: string, run: string, clock: Clock): Promise<void> {
  const id = await idOf(repository, code)
  if (id === undefined)
    throw new Failure('APPROVAL_INVALID', 'this is no code of break-glass', { hint: 'is every letter right?' })
  const nowMs = clock.now()
  const { username: account } = userInfo()
  const name = `break-glass/${id}.used`
  const used = {
    format: 1,
    id,
    at: new Date(nowMs).toISOString(),
    until: new Date(nowMs + HOLDS_MS).toISOString(),
    run,
    host: hostname(),
    account,
  }
  if (await putAuthority(repository, name, used)) return
  const before = usedSchema.parse(await readAuthority(repository, name))
  if (Date.parse(before.until) > nowMs) return
  throw new Failure('APPROVAL_INVALID', `this code was used at ${before.at}, and was good until ${before.until}`, {
    hint: 'take another sealed one',
  })
}

/** What one repository knows of codes all of them know: a code opens each, and is used up in all. */
export async function spreadBreakGlass(repositories: readonly Repository[]): Promise<void> {
  const documents = new Map<string, unknown>()
  const known = new Map<Repository, ReadonlySet<string>>()
  for (const repository of repositories) {
    const names = await listAuthority(repository, 'break-glass/')
    known.set(repository, new Set(names))
    for (const name of names) if (!documents.has(name)) documents.set(name, await readAuthority(repository, name))
  }
  for (const [repository, names] of known) {
    const missing = [...documents].filter(([name, document]) => document !== undefined && !names.has(name))
    for (const [name, document] of missing) await putAuthority(repository, name, document as object)
  }
}

async function idOf(repository: Repository, code: string): Promise<string | undefined> {
  const wanted = Buffer.from(digestOfCode(code), 'hex')
  let found: string | undefined
  for (const name of await listAuthority(repository, 'break-glass/')) {
    if (!name.endsWith('.made')) continue
    const made = madeSchema.safeParse(await readAuthority(repository, name))
    if (!made.success) continue
    if (timingSafeEqual(wanted, Buffer.from(made.data.digest, 'hex'))) found = made.data.id
  }
  return found
}

/** However it was typed: small letters, without dashes, with spaces. */
function digestOfCode(code: string): string {
  return createHash('sha256')
    .update(code.toUpperCase().replaceAll(/[^A-Z0-9]/g, ''))
    .digest('hex')
}
