import type { FastifyReply, FastifyRequest } from 'fastify'

/** Browsers take `__Host-` only with Secure, for the whole host and from the host itself: no neighbour sets one for us. */
const SECURE_NAME = '__Host-resus'
const PLAIN_NAME = 'resus-session'
const HEADER_MAX = 8_192

/** The value of a cookie; undefined when there is none, or more than one of that name: a second one was put there by somebody else. */
export function readCookie(request: FastifyRequest, name: string): string | undefined {
  const header = request.headers.cookie ?? ''
  if (header.length > HEADER_MAX) return undefined
  const values = header
    .split(';')
    .map((each) => each.trim())
    .filter((each) => each.startsWith(`${name}=`))
    .map((each) => each.slice(name.length + 1))
  return values.length === 1 ? values[0] : undefined
}

export function readSessionCookie(request: FastifyRequest, isSecure: boolean): string | undefined {
  return readCookie(request, isSecure ? SECURE_NAME : PLAIN_NAME)
}

export function setSessionCookie(reply: FastifyReply, value: string, isSecure: boolean): void {
  addCookie(reply, cookieText(value, isSecure))
}

export function clearSessionCookie(reply: FastifyReply, isSecure: boolean): void {
  addCookie(reply, `${cookieText('', isSecure)}; Max-Age=0`)
}

function cookieText(value: string, isSecure: boolean): string {
  const name = isSecure ? SECURE_NAME : PLAIN_NAME
  return `${name}=${value}; Path=/; HttpOnly; SameSite=Strict${isSecure ? '; Secure' : ''}`
}

/** Another one of the same name takes its place: of two in one answer, browsers keep whichever they like. */
export function addCookie(reply: FastifyReply, text: string): void {
  const name = `${text.split('=')[0]}=`
  const before = [reply.getHeader('set-cookie') ?? []].flat().map(String)
  reply.removeHeader('set-cookie')
  reply.header('set-cookie', [...before.filter((each) => !each.startsWith(name)), text])
}
