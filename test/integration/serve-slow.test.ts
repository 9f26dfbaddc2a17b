import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { controlPlane } from '../services/control-plane.ts'
import { strangeSystem } from '../services/strange-system.ts'

const LAUNCHER = fileURLToPath(new URL('../../resus', import.meta.url))
/** Node looks at connections every 30 s. */
const LONGEST_MS = 150_000

test('a body that comes a byte at a time is cut off, and keeps nobody else waiting', { timeout: 2 * LONGEST_MS }, async (t) => {
  await using plane = await controlPlane(t, await strangeSystem(t))
  const { hostname, port } = new URL(plane.url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  socket.on('error', () => undefined)
  const head = [
    'POST /api/v1/backup-dr/backups/database HTTP/1.1',
    `Host: ${hostname}:${port}`,
    `Authorization: Bearer ${plane.token}`,
  ]
  socket.write([...head, 'Content-Type: application/json', 'Content-Length: 60000', '', '{"type":"'].join('\r\n'))
  let answer = ''
  socket.on('data', (data: Buffer) => (answer += data.toString('utf8')))
  const closed = once(socket, 'close', { signal: AbortSignal.timeout(LONGEST_MS) })
  const dribble = setInterval(() => socket.write('a'), 500)
  t.after(() => {
    clearInterval(dribble)
    socket.destroy()
  })
  assert.equal((await plane.ask('GET /live')).status, 200)
  await closed
  assert.match(answer, /^HTTP\/1\.1 408 /)
  assert.equal((await plane.ask('GET /backup-dr/tasks')).body['next'], null)
})

test('what is started by the launcher leaves no core, whatever the shell allows', async (t) => {
  const child = spawn(
    '/bin/sh',
    ['-c', `ulimit -c unlimited 2>/dev/null; exec "${LAUNCHER}" wal-get 000000010000000000000001 /dev/null`],
    {
      env: { ...process.env, RESUS_CONFIG: '/dev/stdin' },
      stdio: ['pipe', 'ignore', 'ignore'],
    },
  )
  t.after(() => child.kill('SIGKILL'))
  await once(child, 'spawn')
  let limit = ''
  // Its standard input stays open: it waits there until the launcher has become Node.
  for (let tries = 0; tries < 200 && !limit.includes('soft 0'); tries += 1) {
    const [limits, command] = await Promise.all([
      readFile(`/proc/${child.pid}/limits`, 'utf8').catch(() => ''),
      readFile(`/proc/${child.pid}/cmdline`, 'utf8').catch(() => ''),
    ])
    const soft = /^Max core file size +(\S+)/m.exec(limits)?.[1]
    if (command.includes('main.js')) limit = `soft ${soft}`
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  assert.equal(limit, 'soft 0')
})
