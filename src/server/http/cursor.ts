import { z } from 'zod'
import { Failure } from '../../errors.ts'

const partsSchema = z.array(z.string().max(300)).max(8)

/** A place in a list, opaque to who holds it. */
export function cursorOf(parts: readonly string[]): string {
  return Buffer.from(JSON.stringify(parts)).toString('base64url')
}

/** Throws ARGUMENTS_INVALID for what is no cursor of ours. */
export function readCursor(cursor: string): string[] {
  try {
    return partsSchema.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8')))
  } catch (cause) {
    throw new Failure('ARGUMENTS_INVALID', 'this cursor is none', { hint: 'use "next" of the page before, as it is', cause })
  }
}
