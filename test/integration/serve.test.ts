import assert from 'node:assert/strict'
import test from 'node:test'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { controlPlane, withoutSchedules } from '../services/control-plane.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { waitUntil } from '../services/wait-until.ts'

const skip = await skipUnlessInstalled(18)

interface Status {
  readonly components: readonly {
    readonly verdict: string
    readonly backups: number
    readonly newestBackup: { readonly id: string } | null
    readonly receiver: { readonly state: string; readonly archivedLsn: string | null }
    readonly reachedBy: readonly string[]
    readonly proven: { readonly backup: string } | null
  }[]
}

test('the control plane receives, backs up, proves and restores, and says at each moment what is proven', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await withoutSchedules(cluster.configPath)
  await using plane = await controlPlane(t, cluster.configPath)
  const status = async () => ((await plane.ask('GET /backup-dr/backups/status')).body as unknown as Status).components[0]!
  await waitUntil('the receiver works', async () => (await status()).receiver.state === 'receiving')
  assert.equal((await status()).verdict, 'not proven')
  assert.deepEqual((await plane.ask('GET /backup-dr/backups')).body, { items: [], next: null, total: 0 })

  const asked = await plane.ask('POST /backup-dr/backups/database', { body: {}, headers: { 'idempotency-key': 'one' } })
  assert.equal(asked.status, 202, JSON.stringify(asked.body))
  const again = await plane.ask('POST /backup-dr/backups/database', { body: {}, headers: { 'idempotency-key': 'one' } })
  assert.equal(again.body['id'], asked.body['id'])
  const other = await plane.ask('POST /backup-dr/backups/database', {
    body: { type: 'full' },
    headers: { 'idempotency-key': 'one' },
  })
  assert.deepEqual([other.status, other.body['code']], [422, 'KEY_REUSED'])
  assert.equal(asked.headers.get('location'), `/api/v1/backup-dr/tasks/${String(asked.body['id'])}`)
  const backup = await plane.ended(String(asked.body['id']))
  assert.equal(backup['state'], 'done', JSON.stringify(backup))
  const { id } = backup['result'] as { id: string }
  await waitUntil('the backup is in the list', async () => (await status()).newestBackup?.id === id)

  const proof = await plane.ask(`POST /backup-dr/backups/${id}/verify`, { body: { byRestore: true } })
  const proven = await plane.ended(String(proof.body['id']))
  assert.equal(proven['state'], 'done', JSON.stringify(proven))
  await waitUntil('it is proven', async () => (await status()).verdict === 'verified')
  assert.equal((await status()).proven?.backup, id)

  const restore = await plane.ask(`POST /backup-dr/backups/${id}/restore`, {
    body: { name: 'copy' },
    headers: { 'idempotency-key': 'two' },
  })
  const restored = await plane.ended(String(restore.body['id']))
  assert.equal(restored['state'], 'done', JSON.stringify(restored))
  assert.match((restored['result'] as { directory: string }).directory, /restores\/copy$/)
  const sentAgain = await plane.ask(`POST /backup-dr/backups/${id}/restore`, {
    body: { name: 'copy' },
    headers: { 'idempotency-key': 'two' },
  })
  assert.deepEqual(
    [sentAgain.status, sentAgain.body['id']],
    [202, restore.body['id']],
    'its answer was lost: it is no other restore',
  )
  const twice = await plane.ask(`POST /backup-dr/backups/${id}/restore`, { body: { name: 'copy' } })
  assert.deepEqual([twice.status, twice.body['code']], [409, 'DIRECTORY_NOT_EMPTY'])
})
