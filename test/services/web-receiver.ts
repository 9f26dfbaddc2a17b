import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingHttpHeaders, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import type { Certificate } from './certificates.ts'

export interface ReceivedCall {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export interface WebReceiver {
  readonly port: number
  readonly calls: readonly ReceivedCall[]
  /** What it answers from now on; 200 at first. */
  answer: (response: ServerResponse, call: ReceivedCall) => void
}

/** A real server on loopback that keeps what it is sent; https with a certificate. */
export async function webReceiver(t: TestContext, certificate?: Certificate): Promise<WebReceiver> {
  const calls: ReceivedCall[] = []
  const receiver = { port: 0, calls, answer: (response: ServerResponse) => void response.end('taken') }
  const listener: RequestListener = (request, response) => {
    const read = text(request).then((body) => {
      const call = { method: request.method ?? '', path: request.url ?? '', headers: request.headers, body }
      calls.push(call)
      ;(receiver as WebReceiver).answer(response, call)
    })
    // Whoever called is gone.
    read.catch(() => undefined)
  }
  const server = certificate === undefined ? createHttpServer(listener) : createHttpsServer(certificate, listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  receiver.port = (server.address() as AddressInfo).port
  return receiver
}
