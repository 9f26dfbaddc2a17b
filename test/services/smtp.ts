import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import { text } from 'node:stream/consumers'
import { callbackify } from 'node:util'
import { SMTPServer, type SMTPServerDataStream, type SMTPServerOptions, type SMTPServerSession } from 'smtp-server'

export interface ReceivedMail {
  readonly to: readonly string[]
  readonly raw: string
  readonly secure: boolean
  readonly user: string | undefined
}

export interface TestMailServer {
  readonly port: number
  readonly mails: readonly ReceivedMail[]
}

/** A real SMTP server on loopback that keeps what it takes. `onMail` may refuse: throw an error with `responseCode`. */
export async function testMailServer(
  t: TestContext,
  { onMail, ...options }: SMTPServerOptions & { onMail?: (mail: ReceivedMail) => void | Promise<void> } = {},
): Promise<TestMailServer> {
  const mails: ReceivedMail[] = []
  const take = callbackify(async (stream: SMTPServerDataStream, session: SMTPServerSession) => {
    const raw = await text(stream)
    const to = session.envelope.rcptTo.map(({ address }) => address)
    const mail = { raw, to, secure: session.secure, user: typeof session.user === 'string' ? session.user : undefined }
    await onMail?.(mail)
    mails.push(mail)
  })
  const server = new SMTPServer({
    authOptional: true,
    onAuth: (auth, _session, done) => done(null, { user: auth.username ?? '' }),
    onData: (stream, session, done) => take(stream, session, (error) => done(error)),
    ...options,
  })
  server.on('error', () => undefined)
  const listening = server.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  t.after(async () => new Promise<void>((resolve) => server.close(() => resolve())))
  return { port: (listening.address() as AddressInfo).port, mails }
}

/** An error that the server replies. */
export function reply(responseCode: number, message: string): Error {
  return Object.assign(new Error(message), { responseCode })
}
