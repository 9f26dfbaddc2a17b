import type { FastifyRequest } from 'fastify'

/**
 * A bearer token; or, to read in a browser, the password of Basic. That is sent along with whatever another site makes the browser ask, so that it starts and ends nothing.
 */
export function tokenOf({ method, headers }: FastifyRequest): string {
  const [, scheme = '', value = ''] = /^(Bearer|Basic) +(\S{1,300})$/i.exec(headers.authorization ?? '') ?? []
  if (scheme.toLowerCase() !== 'basic') return value
  if (method !== 'GET' && method !== 'HEAD') return ''
  const text = Buffer.from(value, 'base64').toString('utf8')
  return text.slice(text.indexOf(':') + 1)
}
