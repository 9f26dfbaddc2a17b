import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import test from 'node:test'
import { promisify } from 'node:util'
import { testAuthority } from '../../test/services/certificates.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { webReceiver } from '../../test/services/web-receiver.ts'
import { callOut } from './outgoing.ts'

const authority = testAuthority()
const ca = Buffer.from(authority.cert)
const get = { method: 'GET', allowPrivate: true } as const

test('addresses inside are refused however they are written, and so is a name that leads to one', async (t) => {
  const receiver = await webReceiver(t, authority.issue(['localhost', '127.0.0.1']))
  const hosts = [
    '127.0.0.1', '127.1', '0x7f000001', '2130706433', '0177.0.0.1', 'localhost', 'LOCALHOST', '[::1]', '0.0.0.0', '[::]',
    '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[::127.0.0.1]', '[64:ff9b::7f00:1]', '[2002:7f00:1::]', '10.0.0.1', '172.16.0.1', '172.31.255.255',
    '192.168.1.1', '169.254.169.254', '100.64.0.1', '100.127.255.255', '198.18.0.1', '192.0.0.1', '224.0.0.1', '239.1.1.1', '240.0.0.1',
    '255.255.255.255', '[fe80::1]', '[fc00::1]', '[fdff::1]', '[ff02::1]', '[fec0::1]', '[2001::1]',
  ] // prettier-ignore
  for (const host of hosts) {
    const call = callOut({ url: `https://${host}:${receiver.port}/`, method: 'GET', allowPrivate: false, ca })
    await assert.rejects(call, { code: 'ADDRESS_REFUSED' }, host)
  }
  for (const host of ['0.0.0.0', '[::]', '224.0.0.1', '[ff02::1]', '255.255.255.255', '[2002:7f00:1::]']) {
    await assert.rejects(callOut({ ...get, url: `https://${host}:${receiver.port}/`, ca }), { code: 'ADDRESS_REFUSED' }, host)
  }
  assert.equal(receiver.calls.length, 0)
  assert.equal(await callOut({ ...get, url: `https://localhost:${receiver.port}/a?b=c`, ca }), 200)
  assert.deepEqual([receiver.calls[0]?.path, receiver.calls[0]?.headers.host], ['/a?b=c', `localhost:${receiver.port}`])
})

test('without TLS nothing is called but this host, where the file allows it', async (t) => {
  const receiver = await webReceiver(t)
  assert.equal(await callOut({ ...get, url: `http://127.0.0.1:${receiver.port}/` }), 200)
  for (const url of ['http://10.0.0.1/', 'http://192.168.0.1/', 'ftp://127.0.0.1/', 'file:///etc/passwd', 'nonsense']) {
    await assert.rejects(callOut({ ...get, url }), { code: 'ADDRESS_REFUSED' }, url)
  }
  const url = `https://user:word@127.0.0.1:${receiver.port}/`
  await assert.rejects(callOut({ ...get, url }), (error: Error) => {
    assert.doesNotMatch(error.message, /word/)
    return true
  })
  assert.equal(receiver.calls.length, 1)
})

test('a certificate that is not trusted, of another name, or over, is refused before anything is sent', async (t) => {
  const url = (port: number) => `https://localhost:${port}/secret`
  const foreign = await webReceiver(t, testAuthority('Somebody else').issue(['localhost']))
  await assert.rejects(callOut({ ...get, url: url(foreign.port), ca }), {
    code: 'CHANNEL_UNREACHABLE',
    message: /SIGNATURE|CERT/,
  })
  const named = await webReceiver(t, authority.issue(['other.example']))
  await assert.rejects(callOut({ ...get, url: url(named.port), ca }), { code: 'CHANNEL_UNREACHABLE', message: /ALTNAME/ })
  const old = await webReceiver(t, authority.issue(['localhost'], { expired: true }))
  await assert.rejects(callOut({ ...get, url: url(old.port), ca }), (error: Error & { hint?: string }) => {
    assert.match(error.message, /CERT_HAS_EXPIRED/)
    assert.doesNotMatch(`${error.message} ${error.hint} ${String(error.cause)}`, /secret/)
    return true
  })
  assert.deepEqual([foreign.calls, named.calls, old.calls], [[], [], []])
})

test('a redirect is not followed', async (t) => {
  const target = await webReceiver(t)
  const receiver = await webReceiver(t)
  receiver.answer = (response) => response.writeHead(307, { location: `http://127.0.0.1:${target.port}/` }).end()
  assert.equal(await callOut({ ...get, method: 'POST', body: '{}', url: `http://127.0.0.1:${receiver.port}/` }), 307)
  assert.deepEqual(target.calls, [])
})

test('of an endless reply little is read, and a reply that does not end is not waited for long', async (t) => {
  const receiver = await webReceiver(t)
  const url = `http://127.0.0.1:${receiver.port}/`
  let written = 0
  let closed = false
  receiver.answer = (response) => {
    response.on('close', () => (closed = true))
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(16 * 1024))) written += 16 * 1024
    }
    response.on('drain', more)
    more()
  }
  assert.equal(await callOut({ ...get, url, timeoutMs: 60_000 }), 200)
  await waitUntil('the receiver sees the end', () => closed)
  assert.ok(written < 64 * 1024 * 1024, `${written} bytes`)
  receiver.answer = (response) => response.writeHead(202).flushHeaders()
  assert.equal(await callOut({ ...get, url, timeoutMs: 500 }), 202)
  receiver.answer = () => undefined
  await assert.rejects(callOut({ ...get, url, timeoutMs: 500 }), {
    code: 'CHANNEL_UNREACHABLE',
    message: /no reply within 0.5 s/,
  })
  const stop = new AbortController()
  const stopped = callOut({ ...get, url, timeoutMs: 60_000, signal: stop.signal })
  stop.abort(new Error('we end'))
  await assert.rejects(stopped, { message: 'we end' })
})

test('a name that nobody has, and a port where nobody listens, are told in words', async () => {
  const nobody = callOut({ ...get, url: 'https://nobody.invalid/secret' })
  await assert.rejects(nobody, { code: 'CHANNEL_UNREACHABLE', message: /the name "nobody.invalid" leads nowhere/ })
  const closed = callOut({ ...get, url: 'https://127.0.0.1:1/secret' })
  await assert.rejects(closed, { code: 'CHANNEL_UNREACHABLE', message: 'cannot call "127.0.0.1:1": ECONNREFUSED' })
})

test('a proxy of the environment is not used', async (t) => {
  const proxy = await webReceiver(t)
  const receiver = await webReceiver(t)
  const script = `
    const { callOut } = await import(${JSON.stringify(new URL('outgoing.ts', import.meta.url).href)})
    const url = 'http://127.0.0.1:${receiver.port}/'
    const { get } = await import('node:http')
    const theirs = await new Promise((resolve) => get(url, (reply) => resolve(reply.resume().statusCode)))
    const ours = await callOut({ url, method: 'GET', allowPrivate: true })
    console.log(JSON.stringify([theirs, ours]))`
  const address = `http://127.0.0.1:${proxy.port}`
  const env = {
    ...process.env,
    NODE_USE_ENV_PROXY: '1',
    HTTP_PROXY: address,
    HTTPS_PROXY: address,
    http_proxy: address,
    NO_PROXY: '',
  }
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { env })
  assert.deepEqual(JSON.parse(stdout), [200, 200])
  // Without this the test would show nothing.
  assert.ok(proxy.calls.length > 0, 'Node.js itself goes by the proxy')
  assert.deepEqual(
    receiver.calls.map(({ path }) => path),
    ['/'],
  )
})
