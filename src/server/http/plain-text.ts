import type { FastifyInstance } from 'fastify'
import { Failure } from '../../errors.ts'

/** Refuses text that no store keeps and no canonical form has, before anybody works with it: a NUL, or half of a surrogate pair. */
export function requirePlainText(server: FastifyInstance): void {
  server.addHook('preValidation', async ({ params, query, body }) => {
    // One after another: whoever asks chooses how deep it is.
    const waiting: unknown[] = [params, query, body]
    while (waiting.length > 0) {
      const value = waiting.pop()
      if (typeof value === 'string') requirePlain(value)
      else if (typeof value === 'object' && value !== null)
        for (const [name, each] of Object.entries(value)) waiting.push(name, each)
    }
  })
}

function requirePlain(text: string): void {
  if (!text.includes('\0') && text.isWellFormed()) return
  throw new Failure('ARGUMENTS_INVALID', 'there is a NUL, or half of a character, in it', { hint: 'nothing was started' })
}
