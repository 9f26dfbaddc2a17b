import assert from 'node:assert/strict'
import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { FreshServer } from '../services/set-up.ts'

interface SetUpAnswer {
  readonly recoverySheet: string
  readonly proofs: readonly { readonly verdict: string; readonly expires: string }[]
  readonly steps: readonly { readonly step: string }[]
}

for (const major of [15, 18]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: one command leads from a server to a proven backup, and a second changes nothing`,
    { skip },
    async (t) => {
      const server = await FreshServer.start(t, major)
      await server.query("alter system set log_statement = 'all'")
      await server.query('select pg_reload_conf()')
      const first = await server.run('init', '--yes', ...server.flags, '--json')
      assert.equal(first.status, 0, first.stderr + first.stdout)
      const answer = JSON.parse(first.stdout) as SetUpAnswer
      assert.equal(answer.proofs[0]?.verdict, 'verified')

      const home = dirname(server.config)
      for (const name of ['resus.yaml', 'connection', 'passphrase', 'recovery-sheet.txt', 'server.yaml']) {
        assert.equal((await stat(join(home, name))).mode & 0o777, 0o600, name)
      }
      for (const path of [home, join(home, 'state'), join(server.cluster.home, 'repository')]) {
        assert.equal((await stat(path)).mode & 0o777, 0o700, path)
      }
      const connection = await readFile(join(home, 'connection'), 'utf8')
      const password = new URL(connection.trim()).password
      const passphrase = (await readFile(join(home, 'passphrase'), 'utf8')).trim()
      const log = await readFile(server.cluster.logFile, 'utf8')
      assert.match(log, /create role "resus" login replication password 'SCRAM-SHA-256\$/)
      for (const [what, text] of Object.entries({ log, sheet: await readFile(answer.recoverySheet, 'utf8'), ...first })) {
        for (const secret of [password, passphrase]) assert(!String(text).includes(secret), `a secret is in ${what}`)
      }
      const [limits] = await server.query<{ keep: string; slot: string }>(
        `select current_setting('max_slot_wal_keep_size') as keep, (select string_agg(slot_name, ' ') from pg_replication_slots) as slot`,
      )
      assert.match(limits!.keep, /^\d+GB$/)
      assert.equal(limits!.slot, 'resus')

      const before = await server.query('select rolpassword from pg_authid where rolname = $$resus$$')
      const second = await server.run('init', '--comprehensive', '--yes', '--json')
      assert.equal(second.status, 0, second.stderr)
      const { steps } = JSON.parse(second.stdout) as SetUpAnswer
      for (const { step } of steps) assert.match(step, /there already|nothing that a backup needs is missing/)
      assert.deepEqual(await server.query('select rolpassword from pg_authid where rolname = $$resus$$'), before)

      const valid = await server.run('init', '--validate-only')
      assert.equal(valid.status, 0, valid.stdout)
      const beats = await server.query('select sequence from resus.heartbeat')
      assert.equal(beats.length, 1)
    },
  )
}
