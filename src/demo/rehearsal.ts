import { z } from 'zod'
import type { DemoDirectory } from './demo-directory.ts'
import { COMPONENT } from './hospital-server.ts'
import { judgeByResus } from './resus-command.ts'

// The ending of the demo: the recovery that was just seen, rehearsed as it is every few days, judged by the hospital, and signed.

const drillSchema = z.object({
  sequence: z.number().int(),
  digest: z.string(),
  verdict: z.enum(['verified', 'failed', 'not proven']),
  why: z.string(),
  expires: z.string(),
  measured: z.object({
    rtoSeconds: z.number().nullable(),
    rpoSeconds: z.number().nullable(),
    why: z.record(z.string(), z.string()),
  }),
  checks: z.array(z.object({ name: z.string(), verdict: z.string(), found: z.string() })),
  notTested: z.array(z.string()),
})
const keySchema = z.object({ fingerprint: z.string() })
const chainSchema = z.object({ verdict: z.enum(['verified', 'failed', 'not proven']), why: z.string() })
const statusSchema = z.object({
  readiness: z.array(z.object({ score: z.number(), action: z.object({ what: z.string() }).nullable() })).length(1),
})

/** What the drill of a demo left. */
export interface Rehearsal {
  readonly drill: z.infer<typeof drillSchema>
  /** Of the signer, as the recovery sheet has it. */
  readonly fingerprint: string
  /** What an auditor finds who has the bundle and the fingerprint, and nothing else. */
  readonly evidence: z.infer<typeof chainSchema>
  readonly readiness: { readonly score: number; readonly todo: string | null }
}

/** The highest that this release can reach (docs/readiness.md): immutability, playbooks and contacts are not measured yet. */
export const HIGHEST_READINESS = 0.435

/** Drills the newest moment, and checks the evidence from a bundle alone. */
export async function rehearse(directory: DemoDirectory, signal: AbortSignal): Promise<Rehearsal> {
  const ask = async <Schema extends z.ZodType>(schema: Schema, verb: string, args: readonly string[]): Promise<z.infer<Schema>> =>
    schema.parse(await judgeByResus(directory, verb, args, signal))
  const drill = await ask(drillSchema, 'drill', [COMPONENT, '--target', 'latest'])
  const { fingerprint } = await ask(keySchema, 'evidence', ['key'])
  await ask(z.unknown(), 'evidence', ['bundle', '--to', directory.evidence])
  const evidence = await ask(chainSchema, 'evidence', ['verify', directory.evidence, '--fingerprint', fingerprint])
  const { readiness } = await ask(statusSchema, 'status', [])
  return { drill, fingerprint, evidence, readiness: { score: readiness[0]!.score, todo: readiness[0]!.action?.what ?? null } }
}
