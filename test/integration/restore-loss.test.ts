import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { formatLsn, parseLsn } from '../../src/postgres/lsn.ts'
import { FaultyStorage } from '../../src/storage/faulty-storage.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream, writeWal } from '../services/stream.ts'

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: a restore says loudly that acknowledged WAL is not there`, { skip }, async (t) => {
    await using cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
    // While the storage is away, WAL is acknowledged by the spool; then it takes the first whole segment that waited, and nothing more.
    let away = false
    const taken = new Set<string>()
    const waited = new Set<string>()
    const storage = new FaultyStorage(cluster.repository.storage, ({ operation, key }) => {
      if (!away || operation !== 'put' || taken.has(key)) return undefined
      if (/\/[0-9A-F]{24}$/.test(key)) waited.add(key)
      return 'error'
    })
    const repository = { ...cluster.repository, storage }
    const home = {
      repository,
      repositoryDirectory: cluster.repositoryDirectory,
      spoolDirectory: join(cluster.cluster.home, 'lost'),
      faults: () => undefined,
    }
    const { connectionString } = cluster.cluster
    const stream = startStream(t, home, { connectionString, component: cluster.component })
    await stream.waitFor(({ kind }) => kind === 'connected')
    await cluster.backup()
    const client = await connect(t, connectionString)
    const begun = await flushLsn(client)
    await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= begun)

    const quiet: string[] = []
    const before = await cluster.restore(undefined, undefined, { onNotice: (text) => quiet.push(text) })
    assert.ok(before.bytesLost === 0 || before.bytesLost === null, `${before.bytesLost} bytes`)
    assert.doesNotMatch(quiet.join(), /MISSING/)

    away = true
    for (let round = 0; round < 4; round += 1) await writeWal(client)
    const end = await flushLsn(client)
    await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
    await stream.waitFor(({ kind }) => kind === 'alarm')
    taken.add([...waited].toSorted()[0]!)
    const stored = stream.events.length
    await stream.waitFor((event) => event.kind === 'stored' && stream.events.indexOf(event) >= stored)
    await stream.stop()
    // The host of the receiver is gone, with its spool.
    await rm(home.spoolDirectory, { recursive: true })

    const notices: string[] = []
    const preview = await cluster.preview({ kind: 'latest' }, join(cluster.cluster.home, 'never-made'))
    const report = await cluster.restore(undefined, undefined, { onNotice: (text) => notices.push(text) })
    assert.ok(parseLsn(report.acknowledgedLsn!) >= end, `acknowledged ${report.acknowledgedLsn}, at least ${formatLsn(end)}`)
    assert.equal(report.bytesLost, Number(parseLsn(report.acknowledgedLsn!) - parseLsn(report.walEndLsn)))
    assert.ok(report.bytesLost > 1024 * 1024)
    assert.equal(preview.loss.bytesLost, report.bytesLost)
    assert.match(
      notices[0]!,
      new RegExp(`ACKNOWLEDGED CHANGES ARE MISSING.*${report.acknowledgedLsn}.*at least ${report.bytesLost} bytes`),
    )
    // What ends earlier on purpose has lost nothing.
    const backup = await cluster.restore({ kind: 'backup', backup: report.backup })
    assert.equal(backup.bytesLost, null)
  })
}
