import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { systemClock, type Clock } from '../../src/clock.ts'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'
import { serve, type ServeOptions } from '../../src/server/serve.ts'
import { waitUntil } from './wait-until.ts'

/** An answer of the API. */
export interface ApiAnswer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
}

/** A `resus serve` in this process, with its store embedded unless said. */
export interface ControlPlane extends AsyncDisposable {
  readonly url: string
  readonly token: string
  readonly state: string
  readonly reports: readonly string[]
  /** "GET /path" below /api/v1, with the token of the file unless said. */
  ask(
    what: string,
    options?: { readonly body?: unknown; readonly headers?: Record<string, string>; readonly token?: null },
  ): Promise<ApiAnswer>
  /** Waits until a task has ended. */
  ended(id: string): Promise<Record<string, unknown>>
}

export async function controlPlane(
  t: TestContext,
  configPath: string,
  options: {
    readonly settings?: Record<string, unknown>
    readonly databaseUrl?: string
    readonly state?: string
    readonly clock?: Clock
  } = {},
): Promise<ControlPlane> {
  const state = options.state ?? (await mkdtemp(join(await openTemporaryDirectory(), 'resus-serve-')))
  const serverFile = join(state, 'server.yaml')
  await writeFile(
    serverFile,
    JSON.stringify({ listen: '127.0.0.1:0', state, restoreRoots: [join(state, 'restores')], ...options.settings }),
  )
  const controller = new AbortController()
  const reports: string[] = []
  let ready: Parameters<NonNullable<ServeOptions['onReady']>>[0] | undefined
  let failed: unknown
  const running = serve({
    configPath,
    serverFile,
    databaseUrl: options.databaseUrl,
    clock: options.clock ?? systemClock,
    signal: controller.signal,
    report: (text) => {
      reports.push(text)
      t.diagnostic(text)
    },
    onReady: (at) => (ready = at),
  }).catch((error: unknown) => (failed = error))
  await waitUntil('the control plane answers', () => {
    if (failed !== undefined) throw failed as Error
    return ready !== undefined
  })
  const { url, tokenPath } = ready!
  // None once there are people.
  const token = tokenPath === null ? '' : (await readFile(tokenPath, 'utf8')).trim()
  const ask: ControlPlane['ask'] = async (what, { body, headers, token: own } = {}) => {
    const [method = 'GET', path = ''] = what.split(' ')
    const answer = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: {
        ...(own === null ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = await answer.text()
    return {
      status: answer.status,
      headers: answer.headers,
      body: text.startsWith('{') ? (JSON.parse(text) as Record<string, unknown>) : { text },
    }
  }
  return {
    url,
    token,
    state,
    reports,
    ask,
    ended: async (id) => {
      let task: Record<string, unknown> = {}
      await waitUntil(`task ${id} has ended`, async () => {
        const { status, body } = await ask(`GET /backup-dr/tasks/${id}`)
        assert.equal(status, 200, JSON.stringify(body))
        task = body
        return !['waiting', 'running'].includes(String(body['state']))
      })
      return task
    },
    [Symbol.asyncDispose]: async () => {
      controller.abort()
      await running
      if (options.state === undefined) await rm(state, { recursive: true })
      if (failed !== undefined) throw failed as Error
    },
  }
}

/** A state directory for control planes one behind the other. */
export async function lastingState(t: TestContext): Promise<string> {
  const state = await mkdtemp(join(await openTemporaryDirectory(), 'resus-serve-'))
  t.after(async () => rm(state, { recursive: true, force: true }))
  return state
}

/** Changes a test's configuration: nothing happens that the test does not ask for. */
export async function withoutSchedules(configPath: string): Promise<void> {
  const configuration = JSON.parse(await readFile(configPath, 'utf8')) as { components: Record<string, object> }
  const never = { backup: 'never', verify: 'never', prove: 'never', drill: 'never', expire: 'never', check: 'never' }
  for (const [name, component] of Object.entries(configuration.components)) {
    configuration.components[name] = { ...component, schedules: never }
  }
  await writeFile(configPath, JSON.stringify(configuration))
}
