import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import type { Secret } from '../secret.ts'
import { readObject, type Storage } from '../storage/storage.ts'
import { deriveKeyRing, type KeyMaterial, type KeyRing } from './key-ring.ts'
import { type KeySlot, keySlotSchema, newKeyMaterial, unwrapKey, wrapKey } from './keys.ts'
import { DESCRIPTOR_KEY, KEY_PREFIX, keySlotKey, randomId, SYSTEM_KEY } from './layout.ts'
import { getRecord, putObject } from './sealed-object.ts'

const FORMAT = 1

export const descriptorSchema = z.object({
  format: z.number(),
  repository: z.string().regex(/^[0-9a-f]{32}$/),
  createdAt: z.string(),
})

/** An open repository: where its objects lie, and the keys to them. */
export interface Repository {
  readonly id: string
  readonly system: string
  readonly storage: Storage
  readonly ring: KeyRing
}

export interface RepositoryAccess {
  readonly storage: Storage
  readonly passphrase: Secret
  readonly system: string
}

/**
 * Makes the repository of a system, or opens the one that is there. Order: a key slot (useless alone), the descriptor (of two
 * that run at once one wins), the system's name. A crash between any two leaves what running it again completes.
 * Throws what `openRepository` throws.
 */
export async function initRepository(
  access: RepositoryAccess,
  options: { clock: Clock; kdfCost?: number },
): Promise<{ repository: Repository; created: boolean }> {
  const { storage, passphrase, system } = access
  const createdAt = new Date(options.clock.now()).toISOString()
  const created =
    (await readDescriptor(storage)) === undefined && (await claimRepository(storage, { ...options, passphrase, createdAt }))
  const { id, ring } = await openKeyRing(access)
  await unlessExists(putObject(storage, ring, { kind: 'system', name: SYSTEM_KEY, head: { system, createdAt } }))
  await assertSystem(access, ring)
  return { repository: { id, system, storage, ring }, created }
}

/**
 * Opens the repository of a system. Throws REPOSITORY_MISSING, REPOSITORY_TOO_NEW, KEY_WRONG for a passphrase that fits no
 * slot, REPOSITORY_FOREIGN when it belongs to another system.
 */
export async function openRepository(access: RepositoryAccess): Promise<Repository> {
  const { id, ring } = await openKeyRing(access)
  await assertSystem(access, ring)
  return { id, system: access.system, storage: access.storage, ring }
}

async function claimRepository(
  storage: Storage,
  options: { passphrase: Secret; createdAt: string; kdfCost?: number },
): Promise<boolean> {
  const { createdAt } = options
  const repository = randomId()
  const material = newKeyMaterial()
  const { slot, text } = await wrapKey({ ...options, repository, material })
  await storage.put(keySlotKey(material.key, slot), Buffer.from(text))
  return await unlessExists(storage.put(DESCRIPTOR_KEY, Buffer.from(JSON.stringify({ format: FORMAT, repository, createdAt }))))
}

/** Whether a put was made; false when the object is there already. */
async function unlessExists(put: Promise<void>): Promise<boolean> {
  try {
    await put
    return true
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_EXISTS') return false
    throw error
  }
}

async function openKeyRing(access: RepositoryAccess): Promise<{ id: string; ring: KeyRing }> {
  const { storage } = access
  const descriptor = await readDescriptor(storage)
  if (descriptor === undefined) {
    throw new Failure('REPOSITORY_MISSING', `there is no repository in ${storage.description}`, {
      hint: 'run "resus init" to make one, or correct the storage in the configuration',
    })
  }
  if (descriptor.format !== FORMAT) {
    const what = `the repository in ${storage.description} is of format ${descriptor.format}, this Resus knows ${FORMAT}`
    throw new Failure('REPOSITORY_TOO_NEW', what, { hint: 'use a newer Resus' })
  }
  return { id: descriptor.repository, ring: deriveKeyRing(descriptor.repository, await openKeys(access, descriptor.repository)) }
}

async function assertSystem(access: RepositoryAccess, ring: KeyRing): Promise<void> {
  const head = await getRecord(access.storage, ring, { kind: 'system', name: SYSTEM_KEY })
  const owner = z.object({ system: z.string() }).parse(head).system
  if (owner === access.system) return
  const what = `the repository in ${access.storage.description} belongs to the system "${owner}", the configuration is of "${access.system}"`
  throw new Failure('REPOSITORY_FOREIGN', what, {
    hint: 'give each system a storage of its own, or correct "system" in the configuration',
  })
}

async function openKeys(access: RepositoryAccess, repository: string): Promise<KeyMaterial[]> {
  const opened: { material: KeyMaterial; createdAt: string }[] = []
  let slots = 0
  let damage: Failure | undefined
  for await (const { key } of access.storage.list(KEY_PREFIX)) {
    slots += 1
    const slot = readSlot(key, await readObject(access.storage, key))
    // Another slot may open the repository all the same.
    if (slot instanceof Failure) {
      damage ??= slot
      continue
    }
    const material = await unwrapKey(repository, slot, access.passphrase)
    if (material !== undefined) opened.push({ material, createdAt: slot.createdAt })
  }
  if (opened.length === 0 && damage !== undefined) throw damage
  if (opened.length === 0) {
    throw new Failure(
      'KEY_WRONG',
      `the passphrase opens none of the ${slots} key slots of the repository in ${access.storage.description}`,
      {
        hint: 'is this the passphrase that the repository was made with? Nothing can be read without it.',
      },
    )
  }
  return opened.toSorted((left, right) => right.createdAt.localeCompare(left.createdAt)).map(({ material }) => material)
}

function readSlot(key: string, bytes: Buffer): KeySlot | Failure {
  const slot = keySlotSchema.safeParse(tryJson(bytes))
  if (slot.success) return slot.data
  return new Failure('OBJECT_DAMAGED', `the key slot "${key}" is damaged: ${slot.error.issues[0]?.message}`)
}

function tryJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown
  } catch {
    // Undefined fits no schema, and is reported as what it should have been.
    return undefined
  }
}

async function readDescriptor(storage: Storage): Promise<z.infer<typeof descriptorSchema> | undefined> {
  let text: Buffer
  try {
    text = await readObject(storage, DESCRIPTOR_KEY)
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_MISSING') return undefined
    throw error
  }
  const descriptor = descriptorSchema.safeParse(parseJson(text, DESCRIPTOR_KEY))
  if (!descriptor.success)
    throw new Failure('OBJECT_DAMAGED', `the descriptor "${DESCRIPTOR_KEY}" in ${storage.description} is damaged`)
  return descriptor.data
}

function parseJson(bytes: Buffer, name: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown
  } catch (cause) {
    throw new Failure('OBJECT_DAMAGED', `object "${name}" is damaged: it is not JSON`, { cause })
  }
}
