import type { Action } from '../../authority/roles.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the route lets somebody do (src/authority/roles.ts); `none`: it takes no credentials. */
    readonly action?: Action | 'none'
  }
}

/** For the options of a route that takes no credentials. */
export const OPEN = { action: 'none' } as const
/** For the options of a route to one's own things. */
export const SELF = { action: 'self' } as const
