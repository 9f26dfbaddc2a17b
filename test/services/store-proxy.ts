import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

type Manner = 'pass' | 'refuse' | 'stall'

/** Stands between a store and those who use it. */
export interface StoreProxy {
  readonly connectionString: string
  /** `refuse` ends all connections and takes no more, `stall` passes nothing on any more, `pass` begins anew. */
  behave(manner: Manner): void
}

/** In front of a database on the Unix socket that its connection string names. */
export async function storeProxy(t: TestContext, connectionString: string): Promise<StoreProxy> {
  const { searchParams, pathname } = new URL(connectionString.replace('@/', '@localhost/'))
  const path = `${searchParams.get('host')}/.s.PGSQL.${searchParams.get('port')}`
  const sockets = new Set<Socket>()
  let manner: Manner = 'pass'
  const pass = (from: Socket, to: Socket) => {
    sockets.add(from)
    from.on('data', (bytes) => {
      if (manner === 'pass') to.write(bytes)
    })
    from.on('error', () => undefined)
    from.on('close', () => to.destroy())
  }
  const server = createServer((client) => {
    if (manner === 'refuse') {
      client.destroy()
      return
    }
    const upstream = connect(path)
    pass(client, upstream)
    pass(upstream, client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const end = () => {
    for (const socket of sockets) socket.destroy()
    sockets.clear()
  }
  t.after(() => {
    end()
    server.close()
  })
  return {
    connectionString: `postgres://postgres@127.0.0.1:${(server.address() as AddressInfo).port}${pathname}`,
    behave: (next) => {
      // What was stalled would be half said.
      if (next !== 'stall') end()
      manner = next
    },
  }
}
