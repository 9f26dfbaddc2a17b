import { createHash } from 'node:crypto'

/** The id of what has a name already, the same each time (a UUID of version 8, RFC 9562). */
export function idNamed(name: string): string {
  const hash = createHash('sha256').update(name).digest('hex')
  return `${hash.slice(0, 8)}-${hash.slice(8, 12)}-8${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`
}
