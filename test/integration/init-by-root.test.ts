import assert from 'node:assert/strict'
import { readdir, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ordinaryUser } from '../../src/postgres/ordinary-user.ts'
import { assertReachable } from '../../src/postgres/staged-runtime.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { FreshServer } from '../services/set-up.ts'

// `npm test` runs as an ordinary user, even for root. This one is run by root itself:
//   node_modules/.bin/node --test test/integration/init-by-root.test.ts

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))

for (const major of [15, 18]) {
  test(
    `PostgreSQL ${major}: what root sets up belongs to the server's account`,
    { skip: await skipUnlessRoot(major) },
    async (t) => {
      const user = ordinaryUser()!
      const server = await FreshServer.start(t, major)
      const { home, directory } = server.cluster
      const done = await server.run('init', '--yes', ...server.flags)
      assert.equal(done.status, 0, done.stderr)
      for (const place of [dirname(server.config), join(home, 'repository')]) {
        const entries = await readdir(place, { recursive: true })
        for (const path of [place, ...entries.map((entry) => join(place, entry))]) {
          const { uid, mode } = await stat(path)
          assert.equal(uid, user.uid, path)
          assert.equal(mode & 0o077, 0, `${path} ${mode.toString(8)}`)
        }
      }
      const valid = await server.run('init', '--validate-only')
      assert.equal(valid.status, 0, valid.stdout)

      // After the disaster: what is kept can be proven without the server and its files.
      await server.cluster.kill()
      await rm(directory, { recursive: true })
      const proven = await server.run('init', '--dr-only', '--yes')
      assert.equal(proven.status, 0, proven.stderr)
    },
  )
}

async function skipUnlessRoot(major: number): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'only root can give files away: run this file by root, as its first lines say'
  try {
    await assertReachable(CHECKOUT)
  } catch {
    return 'the account of the server has to run Resus from this checkout, which other accounts cannot enter'
  }
  return await skipUnlessInstalled(major)
}
