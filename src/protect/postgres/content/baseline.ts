import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { assert } from '../../../assert.ts'
import { parseLsn } from '../../../postgres/lsn.ts'
import { listEvidence, putLongEvidence, readEvidenceHead, readLongEvidence } from '../../../repository/evidence-objects.ts'
import { keyedName } from '../../../repository/key-ring.ts'
import { timeName } from '../../../repository/layout.ts'
import type { Repository } from '../../../repository/repository.ts'
import { damaged } from '../../../repository/sealed-object.ts'
import type { CallOptions } from '../../../storage/storage.ts'
import { catalogFactSchema } from './catalog-facts.ts'
import { fhirFiguresSchema } from './fhir-figures.ts'

// What a component had at one moment, so that a copy can be held against it (docs/drills.md, "The baseline").

const headSchema = z.object({
  format: z.literal(1),
  component: z.string(),
  /** By the server's clock. */
  at: z.iso.datetime({ precision: 3 }),
  database: z.string(),
  systemIdentifier: z.string().regex(/^\d+$/),
  major: z.int(),
  timeline: z.int().positive(),
  /** Of all that the snapshot saw the WAL lies before it. */
  lsn: z.string().regex(/^[0-9A-F]+\/[0-9A-F]+$/),
  /** `pg_current_snapshot()`. */
  snapshot: z.string().regex(/^\d+:\d+:[\d,]*$/),
  /** A transaction of our own that has changed nothing: that it has committed makes no difference. */
  mark: z.string().regex(/^\d+$/),
})
/** Which moment a baseline is of. */
export type BaselineMoment = z.infer<typeof headSchema>

const bodySchema = z.object({
  tables: z.array(
    z.object({ oid: z.string(), name: z.string(), rows: z.int().nonnegative(), hash: z.string().regex(/^-?\d+$/) }),
  ),
  /** What was left out, and why. */
  unread: z.array(z.object({ name: z.string(), why: z.string() })),
  catalog: z.array(catalogFactSchema),
  /** Null where no mapping was configured, or its tables could not be read. */
  fhir: fhirFiguresSchema.nullable(),
})

/** A baseline as it is kept. */
export type Baseline = BaselineMoment & z.infer<typeof bodySchema>
export type BaselineTable = Baseline['tables'][number]

/** Keeps it; it is durable when this resolves. Gives its name. Throws what the storage throws. */
export async function putBaseline(repository: Repository, baseline: Baseline, call: CallOptions = {}): Promise<string> {
  const name = `${folder(repository, baseline.component)}${timeName(Date.parse(baseline.at))}-${randomBytes(4).toString('hex')}`
  const [head, body] = [headSchema.parse(baseline), bodySchema.parse(baseline)]
  await putLongEvidence(repository, name, { head, body }, call)
  return name
}

/** Moments of the baselines of a component, the newest first, each with the name of its object. Throws OBJECT_DAMAGED, and what the storage throws. */
export async function* baselineMoments(
  repository: Repository,
  component: string,
  call: CallOptions = {},
): AsyncGenerator<{ readonly name: string; readonly moment: BaselineMoment }> {
  const names = await listEvidence(repository, folder(repository, component), call)
  for (const name of names.toReversed()) {
    const head = headSchema.safeParse(await readEvidenceHead(repository, name, call))
    if (!head.success) throw damaged(name, 'it is no baseline')
    yield { name, moment: head.data }
  }
}

/** The whole baseline of a name. Throws OBJECT_DAMAGED, OBJECT_MISSING, and what the storage throws. */
export async function readBaseline(repository: Repository, name: string, call: CallOptions = {}): Promise<Baseline> {
  const { head, body } = await readLongEvidence(repository, name, call)
  const [moment, content] = [headSchema.safeParse(head), bodySchema.safeParse(body)]
  if (!moment.success || !content.success) throw damaged(name, 'it is no baseline')
  return { ...moment.data, ...content.data }
}

/** The newest that can be a drill's target: `isReachable` says whether a position of a timeline can be. Undefined where there is none. */
export async function newestReachable(
  repository: Repository,
  component: string,
  isReachable: (moment: BaselineMoment) => boolean,
  call: CallOptions = {},
): Promise<BaselineMoment | undefined> {
  for await (const { moment } of baselineMoments(repository, component, call)) if (isReachable(moment)) return moment
  return undefined
}

/** Which transactions a snapshot did not see though they were under way, and from which on it saw none. */
export function unseenBy(snapshot: string): { readonly underWay: readonly string[]; readonly from: bigint } {
  const [, from, underWay] = snapshot.split(':')
  assert(from !== undefined && underWay !== undefined, `"${snapshot}" is a snapshot`)
  return { underWay: underWay === '' ? [] : underWay.split(','), from: BigInt(from) }
}

/** `lsn` of the moment, as a number. */
export function momentLsn({ lsn }: BaselineMoment): bigint {
  return parseLsn(lsn)
}

function folder(repository: Repository, component: string): string {
  return `baselines/${keyedName(repository.ring, 'component', component)}/`
}
