import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { testAuthority } from '../../test/services/certificates.ts'
import { testChannels, testSecret } from '../../test/services/channels.ts'
import { reply, testMailServer } from '../../test/services/smtp.ts'
import { webReceiver } from '../../test/services/web-receiver.ts'
import { systemClock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { channelsSchema, type Channel } from './channel.ts'
import type { Entry, Message } from './message.ts'
import { sendMessage } from './send.ts'

const authority = testAuthority()
const signal = new AbortController().signal

const entry: Entry = {
  event: 'opened',
  alarm: '0197a000-0000-7000-8000-000000000001',
  key: 'JOB_FAILED | Osun HIS | his-db',
  severity: 'alarm',
  audience: ['alarm'],
  title: 'A job failed',
  text: 'the storage was full',
  hint: 'read its log',
  system: 'Osun HIS',
  component: 'his-db',
  code: 'JOB_FAILED',
  count: 1,
  openedAt: '2026-11-21T06:00:00.000Z',
  clearedAt: null,
}
const message: Message = {
  id: '0197a000-0000-7000-8000-000000000002',
  kind: 'alarms',
  at: '2026-11-21T06:00:10.000Z',
  entries: [entry],
  lines: [],
}
/** As a name in the configuration, a host or an error message of another program may be. */
const hostile =
  'x\r\nBcc: thief@evil.example\r\n\r\n<!channel> <https://evil.example|click> @here https://evil.example [a](https://evil.example) & \u202e\u0000'

async function send(channel: Channel | undefined, sent: Message = message): Promise<string> {
  assert.ok(channel)
  return await sendMessage(channel, sent, { clock: systemClock, signal })
}

async function authorityFile(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-ca-'))
  t.after(async () => rm(directory, { recursive: true }))
  await writeFile(join(directory, 'ca.pem'), authority.cert)
  return join(directory, 'ca.pem')
}

async function mailSetup(
  t: TestContext,
  { server = {}, smtp = {}, trust = true }: { server?: object; smtp?: object; trust?: boolean } = {},
) {
  const mailServer = await testMailServer(t, { ...authority.issue(['localhost', '127.0.0.1']), ...server })
  const ca = trust ? { ca: await authorityFile(t) } : {}
  const [channel] = testChannels({
    mail: {
      kind: 'email',
      to: ['oncall@hospital.example', 'night@hospital.example'],
      from: 'resus@hospital.example',
      smtp: { host: 'localhost', port: mailServer.port, ...smtp },
      ...ca,
    },
  })
  return { mailServer, channel }
}

function mistakes(channel: object): string[] {
  const parsed = channelsSchema.safeParse({ it: channel })
  return parsed.success ? [] : parsed.error.issues.map(({ path, message: text }) => `${path.slice(1).join('.')}: ${text}`)
}

test('mail goes by STARTTLS, logged in, with an id and headers of its own', async (t) => {
  const { mailServer, channel } = await mailSetup(t, { smtp: { user: 'resus', password: testSecret('hush') } })
  assert.match(await send(channel), /^250 /)
  const [mail, ...more] = mailServer.mails
  assert.deepEqual(more, [])
  assert.deepEqual([mail?.secure, mail?.user, mail?.to], [true, 'resus', ['oncall@hospital.example', 'night@hospital.example']])
  assert.match(mail?.raw ?? '', /^Subject: \[alarm\] Osun HIS \/ his-db: A job failed\r$/m)
  assert.match(mail?.raw ?? '', /^Message-ID: <0197a000-0000-7000-8000-000000000002@hospital\.example>\r$/m)
  assert.match(mail?.raw ?? '', /^Auto-Submitted: auto-generated\r$/m)
  assert.match(mail?.raw ?? '', /the storage was full/)
})

test('mail goes by TLS from the first byte, and without it only to this host', async (t) => {
  const implicit = await mailSetup(t, { server: { secure: true }, smtp: { tls: 'implicit' } })
  assert.match(await send(implicit.channel), /^250 /)
  assert.equal(implicit.mailServer.mails[0]?.secure, true)
  const plain = await mailSetup(t, { server: { disabledCommands: ['STARTTLS'] }, smtp: { tls: 'none', host: '127.0.0.1' } })
  assert.match(await send(plain.channel), /^250 /)
})

test('a mail server without TLS, or with a certificate that is not trusted, gets neither mail nor password', async (t) => {
  const login = { user: 'resus', password: testSecret('hush') }
  const seen: string[] = []
  const server = {
    onAuth: (auth: { password?: string }, _session: unknown, done: (error: Error) => void) => {
      seen.push(auth.password ?? '')
      done(new Error('no'))
    },
  }
  const stripped = await mailSetup(t, { server: { ...server, disabledCommands: ['STARTTLS'] }, smtp: login })
  await assert.rejects(send(stripped.channel), { code: 'CHANNEL_REFUSED', hint: 'it does not speak TLS there' })
  const untrusted = await mailSetup(t, { server, smtp: login, trust: false })
  await assert.rejects(send(untrusted.channel), { code: 'CHANNEL_UNREACHABLE', message: /certificate/ })
  const misnamed = await mailSetup(t, { server: { ...server, ...authority.issue(['other.example']) }, smtp: login })
  await assert.rejects(send(misnamed.channel), { code: 'CHANNEL_UNREACHABLE', message: /altnames/ })
  assert.deepEqual(seen, [])
  for (const each of [stripped, untrusted, misnamed]) assert.deepEqual(each.mailServer.mails, [])
})

test('what a mail server replies decides whether it is tried again soon, and no password is in the words', async (t) => {
  const busy = await mailSetup(t, {
    server: {
      onMail: () => {
        throw reply(451, 'busy, come back')
      },
    },
  })
  await assert.rejects(send(busy.channel), { code: 'CHANNEL_UNREACHABLE', message: /451 busy, come back/ })
  const never = await mailSetup(t, {
    server: {
      onMail: () => {
        throw reply(554, 'never')
      },
    },
  })
  await assert.rejects(send(never.channel), { code: 'CHANNEL_REFUSED', message: /554 never/ })
  const onAuth = (auth: { password?: string }, _session: unknown, done: (error: Error) => void) => {
    const password = auth.password ?? ''
    done(reply(535, `wrong: ${password} ${Buffer.from(password).toString('base64')}`))
  }
  const login = { user: 'resus', password: testSecret('correct horse') }
  const locked = await mailSetup(t, { server: { onAuth }, smtp: login })
  await assert.rejects(send(locked.channel), (error) => {
    assert.ok(error instanceof Failure)
    assert.equal(error.code, 'CHANNEL_REFUSED')
    assert.match(error.message, /535 wrong: \[secret\] \[secret\]/)
    return true
  })
})

test('one recipient that is refused does not keep the mail from the others', async (t) => {
  const onRcptTo = ({ address }: { address: string }, _session: unknown, done: (error?: Error) => void) =>
    done(address.startsWith('night') ? reply(550, 'no such mailbox') : undefined)
  const { mailServer, channel } = await mailSetup(t, { server: { onRcptTo } })
  assert.match(await send(channel), /^250 .*; not taken for night@hospital\.example$/)
  assert.deepEqual(mailServer.mails[0]?.to, ['oncall@hospital.example'])
})

test('a mail server that stalls is left when we are told to end', async (t) => {
  let stalled = () => undefined as void
  const stalls = new Promise<void>((resolve) => (stalled = resolve))
  const { channel } = await mailSetup(t, { server: { onMailFrom: () => stalled(), closeTimeout: 10 } })
  const stop = new AbortController()
  assert.ok(channel)
  const sending = sendMessage(channel, message, { clock: systemClock, signal: stop.signal })
  await stalls
  stop.abort(new Error('we end'))
  await assert.rejects(sending, { message: 'we end' })
})

test('a name from outside adds no header to a mail', async (t) => {
  const { mailServer, channel } = await mailSetup(t)
  const dirty = { ...entry, system: hostile, component: hostile, title: hostile, text: hostile, key: hostile }
  await send(channel, { ...message, entries: [dirty] })
  const raw = mailServer.mails[0]?.raw ?? ''
  const head = raw.slice(0, raw.indexOf('\r\n\r\n'))
  const names = head.split(/\r\n(?![ \t])/).map((line) => line.slice(0, line.indexOf(':')))
  assert.ok(!names.some((name) => /bcc/i.test(name)), head)
  assert.deepEqual(mailServer.mails[0]?.to, ['oncall@hospital.example', 'night@hospital.example'])
})

test('a receiver proves with the secret that a message is from us, and when it was made', async (t) => {
  const receiver = await webReceiver(t, authority.issue(['localhost']))
  const secret = testSecret('hush')
  const url = `https://localhost:${receiver.port}/hook`
  const [channel] = testChannels({ hook: { kind: 'webhook', url, secret, allowPrivate: true, ca: await authorityFile(t) } })
  assert.equal(await send(channel), 'HTTP 200')
  const [call] = receiver.calls
  const [, seconds = '', hex = ''] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(call?.headers['resus-signature'])) ?? []
  assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 3600)
  assert.equal(hex, createHmac('sha256', 'hush').update(`${seconds}.${call?.body}`).digest('hex'))
  assert.equal(call?.headers['content-type'], 'application/json')
  const body = JSON.parse(call?.body ?? '') as Record<string, unknown>
  assert.deepEqual([body['id'], body['kind'], body['severity']], [message.id, 'alarms', 'alarm'])
})

test('a receiver that redirects or refuses is told apart from one that is busy, and what it says is not shown', async (t) => {
  const receiver = await webReceiver(t)
  const url = `http://127.0.0.1:${receiver.port}/hook`
  const [channel] = testChannels({ hook: { kind: 'webhook', url, secret: testSecret('hush'), allowPrivate: true } })
  for (const [status, code] of [
    [302, 'CHANNEL_REFUSED'],
    [401, 'CHANNEL_REFUSED'],
    [404, 'CHANNEL_REFUSED'],
    [429, 'CHANNEL_UNREACHABLE'],
    [503, 'CHANNEL_UNREACHABLE'],
  ] as const) {
    receiver.answer = (response) => response.writeHead(status, { location: '/elsewhere' }).end('metadata of the inside')
    await assert.rejects(send(channel), (error) => {
      assert.ok(error instanceof Failure)
      assert.equal(error.code, code)
      assert.match(error.message, new RegExp(`HTTP ${status}`))
      assert.doesNotMatch(`${error.message} ${error.hint}`, /metadata|elsewhere/)
      return true
    })
  }
  assert.ok(receiver.calls.every(({ path }) => path === '/hook'))
})

test('a chat message mentions nobody and links to nothing that came from outside', async (t) => {
  const receiver = await webReceiver(t)
  const url = testSecret(`http://127.0.0.1:${receiver.port}/services/T0/B0/hush`)
  const [channel] = testChannels({ chat: { kind: 'slack', url, allowPrivate: true } })
  assert.equal(await send(channel, { ...message, entries: [{ ...entry, system: hostile, text: hostile }] }), 'HTTP 200')
  assert.equal(receiver.calls[0]?.path, '/services/T0/B0/hush')
  const { text } = JSON.parse(receiver.calls[0]?.body ?? '') as { text: string }
  assert.match(text, /&lt;!channel&gt;/)
  assert.match(text, /&amp;/)
  assert.doesNotMatch(text, /[<>]|@here|:\/\/|\]\(/)
  receiver.answer = (response) => response.writeHead(404).end()
  await assert.rejects(send(channel), (error) => {
    assert.doesNotMatch(`${String(error)} ${(error as Failure).hint}`, /hush|services/)
    return true
  })
  const [away] = testChannels({ chat: { kind: 'slack', url: testSecret('https://nobody.invalid/services/hush') } })
  await assert.rejects(send(away), (error) => {
    assert.doesNotMatch(`${String(error)} ${(error as Failure).hint} ${JSON.stringify(error)}`, /hush|services/)
    return true
  })
})

test('a channel on the inner network is refused unless the file allows it', async (t) => {
  const receiver = await webReceiver(t, authority.issue(['localhost']))
  const settings = { kind: 'webhook' as const, url: `https://localhost:${receiver.port}/`, secret: testSecret('hush') }
  const [channel] = testChannels({ hook: { ...settings, ca: await authorityFile(t) } })
  await assert.rejects(send(channel), {
    code: 'ADDRESS_REFUSED',
    message: /"localhost" is not called: it is .*, this host itself/,
  })
  assert.deepEqual(receiver.calls, [])
})

test('settings of channels are refused with the reason', () => {
  const mail = { kind: 'email', to: ['a@b.example'], from: 'r@b.example', smtp: { host: 'mail' } }
  const hook = { kind: 'webhook', url: 'https://h.example/', secret: 'env:HUSH' }
  const chat = { kind: 'slack', url: 'file:secrets/slack' }
  for (const good of [mail, hook, chat]) assert.deepEqual(mistakes(good), [])
  const withSmtp = (smtp: object) => mistakes({ ...mail, smtp: { host: 'mail', ...smtp } })
  assert.match(withSmtp({ user: 'x' }).join(), /"user" and "password" together/)
  assert.match(withSmtp({ tls: 'none' }).join(), /smtp\.tls: .*on this host alone/)
  assert.match(withSmtp({ user: 'x', password: 'hush' }).join(), /never the secret itself/)
  assert.deepEqual(withSmtp({ host: '127.0.0.1', tls: 'none' }), [])
  assert.notDeepEqual(withSmtp({ rejectUnauthorized: false }), [])
  for (const to of ['x', 'a@b.example\r\nBcc: c@d.example', 'a@b.example, c@d.example'])
    assert.notDeepEqual(mistakes({ ...mail, to: [to] }), [], to)
  assert.match(mistakes({ ...hook, url: 'http://h.example/' }).join(), /url: "https:/)
  assert.notDeepEqual(mistakes({ ...hook, url: 'http://h.example/', allowPrivate: true }), [])
  assert.notDeepEqual(mistakes({ ...hook, url: 'https://u:p@h.example/' }), [])
  assert.notDeepEqual(mistakes({ ...chat, url: 'https://hooks.example/services/hush' }), [])
  assert.notDeepEqual(mistakes({ ...hook, severities: [] }), [])
})
