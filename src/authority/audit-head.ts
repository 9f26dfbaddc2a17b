import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify, type KeyObject } from 'node:crypto'
import { z } from 'zod'
import { putBatch, listControlObjects, recordLine } from '../repository/control-records.ts'
import type { Repository } from '../repository/repository.ts'
import type { CallOptions } from '../storage/storage.ts'
import { readCopy } from './audit-copy.ts'
import { canonicalJson } from './canonical-json.ts'

// Signed heads: what the trail's newest entry was, told to somebody outside (docs/authority.md, "What remains").

const KEY_KIND = 'key'
/** Put again, so that it is found near the end of the stream, and outlasts what is kept. */
const RENEW_AFTER_MS = 30 * 24 * 3_600_000
/** A message in which heads are looked for. */
const TEXT_CHARACTERS_MAX = 1024 * 1024

export const auditHeadSchema = z.strictObject({
  seq: z.int().min(1),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  at: z.iso.datetime({ precision: 3 }),
  /** Whose repository has the key. */
  system: z.string().min(1).max(300),
  /** Ed25519 over the canonical JSON of the others, base64. */
  signature: z.base64().max(100),
})
export type AuditHead = z.infer<typeof auditHeadSchema>

const keyBodySchema = z.object({ algorithm: z.literal('Ed25519'), privateKey: z.string().max(500) })

/** The key of a system's heads; it never leaves this process but sealed. */
export interface AuditKey {
  readonly privateKey: KeyObject
  readonly putAtMs: number
}

/** The key that a repository keeps; undefined when it has none yet. Throws what the storage throws. */
export async function readKey(repository: Repository, call: CallOptions = {}): Promise<AuditKey | undefined> {
  for await (const { records } of readCopy(repository, 'newest first', call)) {
    for (const { kind, at, body } of records.toReversed()) {
      const known = kind === KEY_KIND ? keyBodySchema.safeParse(body) : undefined
      if (known?.success !== true) continue
      const der = Buffer.from(known.data.privateKey, 'base64')
      return { privateKey: createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }), putAtMs: Date.parse(at) }
    }
  }
  return undefined
}

/** The key, made where there is none, and put again where that was long ago. One node at a time may do so. Throws what the storage throws. */
export async function keepKey(
  repository: Repository,
  known: AuditKey | undefined,
  by: { readonly node: string; readonly nowMs: number; readonly signal: AbortSignal },
): Promise<AuditKey> {
  const { node, nowMs, signal } = by
  const found = known ?? (await readKey(repository, { signal }))
  if (found !== undefined && nowMs - found.putAtMs < RENEW_AFTER_MS) return found
  const privateKey = found?.privateKey ?? generateKeyPairSync('ed25519').privateKey
  const body = {
    algorithm: 'Ed25519',
    privateKey: privateKey.export({ format: 'der', type: 'pkcs8' }).toString('base64'),
  } satisfies z.infer<typeof keyBodySchema>
  const objects = await listControlObjects(repository, 'audit', { signal })
  const putMs = Math.max(nowMs, ...objects.map(({ nameMs }) => nameMs + 1000))
  const line = recordLine({ id: KEY_KIND, at: new Date(nowMs).toISOString(), kind: KEY_KIND, body })
  await putBatch(repository, { stream: 'audit', node, nowMs: putMs, lines: [line] }, { signal })
  return { privateKey, putAtMs: nowMs }
}

/** What is told outside, and checks heads: PEM. */
export function publicKeyOf({ privateKey }: AuditKey): string {
  return createPublicKey(privateKey).export({ format: 'pem', type: 'spki' }).toString()
}

export function signHead(key: AuditKey, head: Omit<AuditHead, 'signature'>): AuditHead {
  return { ...head, signature: sign(null, signedBytes(head), key.privateKey).toString('base64') }
}

/** Whether this key, in PEM, has signed it. */
export function isSigned(head: AuditHead, publicKey: string): boolean {
  if (publicKey === '') return false
  const key = createPublicKey(publicKey)
  return key.asymmetricKeyType === 'ed25519' && verify(null, signedBytes(head), key, Buffer.from(head.signature, 'base64'))
}

/** All heads in a text: a file of them, or the mail of a digest as it was saved. */
export function headsIn(text: string): AuditHead[] {
  const heads: AuditHead[] = []
  for (const [found] of text.slice(0, TEXT_CHARACTERS_MAX).matchAll(/\{[^{}]*\}/g)) {
    for (const candidate of [found, found.replaceAll(/\r?\n/g, ''), fromQuotedPrintable(found)]) {
      const head = auditHeadSchema.safeParse(tryJson(candidate))
      if (!head.success) continue
      heads.push(head.data)
      break
    }
  }
  return heads
}

/** As mails have long lines and signs of equality (RFC 2045). */
function fromQuotedPrintable(text: string): string {
  const joined = Buffer.from(text.replaceAll(/=\r?\n/g, '')).toString('latin1')
  const bytes = joined.replaceAll(/=([0-9A-F]{2})/gi, (_all, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
  return Buffer.from(bytes, 'latin1').toString('utf8')
}

function signedBytes({ seq, hash, at, system }: Omit<AuditHead, 'signature'>): Buffer {
  return Buffer.from(canonicalJson({ seq, hash, at, system }))
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}
