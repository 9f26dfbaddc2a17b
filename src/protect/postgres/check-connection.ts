import { TLSSocket } from 'node:tls'
import type { Socket } from 'node:net'
import { notProven, passed, type Judgement } from './check-item.ts'

// pg 8 verifies the server's certificate and name for prefer, require and verify-ca, too, and says that its next version will not, as libpq does not. So
// only verify-full says what is wanted.

const LOOPBACK = /^(?:::ffff:)?127\.|^::1$/

/** Whether nobody on the way reads along or poses as the server. `socket` is that of an open connection. */
export function judgePrivacy(connectionString: string, socket: Socket, hosts: readonly string[]): Judgement {
  const beyond = hosts.filter((host) => !isHere(host))
  const verified = socket instanceof TLSSocket && socket.authorized && asksForAll(connectionString)
  if (verified) {
    const { valid_to: end } = socket.getPeerCertificate()
    return passed(`verified TLS; the certificate of the server holds until ${new Date(end).toISOString().slice(0, 10)}`)
  }
  const hint =
    'add "?sslmode=verify-full&sslrootcert=/path/of/the/authority.crt" to the connection string, with the host as the certificate of the server names it'
  if (beyond.length > 0) return notProven(`${describe(socket)}, and "hosts" names ${beyond.join(', ')}`, hint)
  if (socket.remoteAddress === undefined) return passed('a socket of this host')
  if (LOOPBACK.test(socket.remoteAddress)) return passed('this host alone (loopback)')
  return notProven(`${describe(socket)} to ${socket.remoteAddress}`, hint)
}

function describe(socket: Socket): string {
  if (!(socket instanceof TLSSocket)) return 'no TLS'
  return socket.authorized ? 'TLS, without sslmode=verify-full' : 'TLS that anybody can answer: the server is not verified'
}

function asksForAll(connectionString: string): boolean {
  const [, query = ''] = /\?(.*)$/.exec(connectionString) ?? []
  return new URLSearchParams(query).getAll('sslmode').at(-1) === 'verify-full'
}

function isHere(host: string): boolean {
  const name = host.replace(/^\[|\](?::\d+)?$/g, '').replace(/^([^:]+):\d+$/, '$1')
  return name === 'localhost' || name.startsWith('/') || LOOPBACK.test(name)
}
