import type { TestContext } from 'node:test'
import Fastify, { type FastifyInstance } from 'fastify'
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod'
import type { Accounts } from '../../src/authority/accounts.ts'
import { logOnRoutes } from '../../src/server/http/log-on-routes.ts'
import { Failure } from '../../src/errors.ts'
import { answerError } from '../../src/server/http/problem.ts'

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
}

/** What a browser keeps of us: cookies, and the CSRF token of the page. */
export interface Browser {
  readonly url: string
  cookie: string
  csrf: string
  readonly ask: (what: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>
}

/** The routes of logging on, on a server of their own. */
export async function authApi(
  t: TestContext,
  accounts: Accounts,
  more: (server: FastifyInstance) => Promise<void> = async () => undefined,
): Promise<{ readonly url: string; readonly browser: () => Browser }> {
  const server = Fastify().withTypeProvider<ZodTypeProvider>()
  server.setValidatorCompiler(validatorCompiler)
  server.setSerializerCompiler(serializerCompiler)
  server.setErrorHandler(answerError)
  await server.register(logOnRoutes, {
    prefix: '/api/v1',
    accounts,
    isSecure: false,
    askForToken: async () => Promise.reject(new Failure('APPROVAL_NEEDED', 'nobody decides here')),
  })
  await more(server as unknown as FastifyInstance)
  const url = await server.listen({ host: '127.0.0.1', port: 0 })
  t.after(async () => server.close())
  return { url, browser: () => newBrowser(url) }
}

function newBrowser(url: string): Browser {
  const browser: Browser = {
    url,
    cookie: '',
    csrf: '',
    ask: async (what, body, headers) => {
      const [method = 'GET', path = ''] = what.split(' ')
      const answer = await fetch(`${url}/api/v1/auth${path}`, {
        method,
        redirect: 'manual',
        headers: {
          ...(browser.cookie === '' ? {} : { cookie: browser.cookie }),
          ...(browser.csrf === '' ? {} : { 'x-resus-csrf': browser.csrf }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const text = await answer.text()
      const document = text.startsWith('{') ? (JSON.parse(text) as Record<string, unknown>) : { text }
      const set = answer.headers.getSetCookie().find((each) => each.startsWith('resus-session='))
      if (set !== undefined) browser.cookie = set.split(';')[0]!
      const session = document['session'] as { csrf: string } | null | undefined
      if (session !== null && session !== undefined) browser.csrf = session.csrf
      return { status: answer.status, headers: answer.headers, body: document }
    },
  }
  return browser
}
