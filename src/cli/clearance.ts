import { randomUUID } from 'node:crypto'
import { hostname, userInfo } from 'node:os'
import { createInterface } from 'node:readline/promises'
import { askFromHost, requireClearance, type Clearance, type Deed } from '../authority/clearance.ts'
import type { Json } from '../authority/canonical-json.ts'
import { Failure } from '../errors.ts'
import type { Repository } from '../repository/repository.ts'
import { optionalText, type Context, type Given } from './verb.ts'

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
/** Of which none says what is done, or where. */
const BESIDE = new Set([
  'to',
  'request',
  'preview',
  'ask',
  'approval',
  'emergency',
  'breakGlass',
  'json',
  'config',
  'progress',
  'latest',
])

/** What a verb's options ask for, in one form however they were given. */
export function deedOptions(given: Given): Record<string, Json> {
  const options: Record<string, Json> = {}
  for (const [name, value] of Object.entries(given.options)) {
    if (BESIDE.has(name) || value === undefined || value === false) continue
    if (Array.isArray(value) && value.length === 0) continue
    options[name] = value as Json
  }
  return options
}

/** Lets it through, or says who has to be asked. Throws ARGUMENTS_INVALID, APPROVAL_NEEDED (also when it was just asked for), APPROVAL_INVALID. */
export async function clear(context: Context, given: Given, repository: Repository, deed: Omit<Deed, 'run'>): Promise<void> {
  const why = optionalText(given, 'ask')
  if (why !== undefined) {
    const asker = { account: userInfo().username, host: hostname(), reason: why }
    const { id, digest, expiresAt } = await askFromHost(repository, deed, asker, context.clock)
    throw new Failure('APPROVAL_NEEDED', `it was asked for, as ${id} (digest ${digest}), and nothing was done`, {
      hint: `when an approver has approved it, until ${expiresAt}: the same command with --approval ${id} instead of --ask`,
    })
  }
  // Once, but for a restore that was given a name: that goes on where it was interrupted.
  const run = optionalText(given, 'request') ?? randomUUID()
  await requireClearance(repository, { ...deed, run }, await clearanceOf(context, given), context.clock)
}

async function clearanceOf(context: Context, given: Given): Promise<Clearance> {
  const [approval, emergency] = [idOf(given, 'approval'), idOf(given, 'emergency')]
  const isBroken = given.options.breakGlass === true
  if ([approval !== undefined, emergency !== undefined, isBroken].filter(Boolean).length > 1) {
    throw new Failure('ARGUMENTS_INVALID', 'one of --approval, --emergency and --break-glass', { hint: 'leave the others out' })
  }
  if (approval !== undefined) return { kind: 'approval', id: approval }
  if (emergency !== undefined) return { kind: 'emergency', id: emergency }
  return isBroken ? { kind: 'break-glass', code: await askCode(context) } : { kind: 'none' }
}

function idOf(given: Given, name: string): string | undefined {
  const text = optionalText(given, name)
  if (text === undefined || ID.test(text)) return text
  throw new Failure('ARGUMENTS_INVALID', `--${name} "${text}" is no id`, { hint: 'it is like 3f2b6c1e-…, as it was shown' })
}

/** A line of standard input: no argument, which every account could read, and no file, which would stay. */
async function askCode({ signal }: Context): Promise<string> {
  const reader = createInterface({ input: process.stdin, output: process.stderr, terminal: process.stdin.isTTY === true })
  try {
    return await reader.question('the sealed code: ', { signal })
  } finally {
    reader.close()
  }
}
