import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import { Failure } from '../errors.ts'
import { skipUnlessInstalled, testCluster } from '../../test/services/postgres.ts'
import { parseControlFile } from './control-file.ts'
import { crc32c } from './crc32c.ts'
import { toolPath } from './installation.ts'
import { formatLsn } from './lsn.ts'

const execute = promisify(execFile)

for (const major of [15, 18]) {
  const skip = await skipUnlessInstalled(major)
  test(`pg_control of PostgreSQL ${major} says what the server says`, { skip }, async (t) => {
    const cluster = await testCluster(t, { major, walSegmentMegabytes: 4, dataChecksums: major === 18 })
    const client = new pg.Client({ connectionString: cluster.connectionString })
    await client.connect()
    await client.query('CREATE TABLE something AS SELECT 1; CHECKPOINT')
    const { rows } = await client.query<Record<string, unknown>>(`
      SELECT system_identifier::text, pg_control_version, catalog_version_no, checkpoint_lsn::text, redo_lsn::text, timeline_id,
        prev_timeline_id, next_xid, extract(epoch FROM checkpoint_time)::float8 AS checkpoint_time, database_block_size,
        blocks_per_segment, wal_block_size, bytes_per_wal_segment, data_page_checksum_version,
        extract(epoch FROM pg_control_last_modified)::float8 AS modified
      FROM pg_control_system(), pg_control_checkpoint(), pg_control_init()`)
    await client.end()
    const found = parseControlFile(await readFile(join(cluster.directory, 'global/pg_control')))
    assert.deepEqual(rows[0], {
      system_identifier: String(found.systemIdentifier),
      pg_control_version: found.controlVersion,
      catalog_version_no: found.catalogVersion,
      checkpoint_lsn: formatLsn(found.checkpointLsn),
      redo_lsn: formatLsn(found.redoLsn),
      timeline_id: found.timeline,
      prev_timeline_id: found.previousTimeline,
      next_xid: `${found.nextTransactionId >> 32n}:${found.nextTransactionId & 0xffffffffn}`,
      checkpoint_time: found.checkpointTime.getTime() / 1000,
      database_block_size: found.blockSize,
      blocks_per_segment: found.relationSegmentBlocks,
      wal_block_size: found.walBlockSize,
      bytes_per_wal_segment: found.walSegmentSize,
      data_page_checksum_version: found.dataChecksumVersion,
      modified: found.time.getTime() / 1000,
    })
    assert.equal(found.state, 'in production')
    assert.equal(found.walLevel, 'replica')
    assert.equal(found.walSegmentSize, 4 << 20)
    assert.equal(found.dataChecksumVersion, major === 18 ? 1 : 0)
    assert.equal(found.defaultCharSigned, major === 18 ? true : undefined)
    await cluster.stop()
    assert.equal(parseControlFile(await readFile(join(cluster.directory, 'global/pg_control'))).state, 'shut down')
  })

  test(`pg_control of PostgreSQL ${major} that is damaged, cut or unknown is refused`, { skip }, async (t) => {
    const cluster = await testCluster(t, { major })
    await cluster.stop()
    const bytes = await readFile(join(cluster.directory, 'global/pg_control'))
    const refuses = (changed: Buffer, message: RegExp) =>
      assert.throws(
        () => parseControlFile(changed),
        (error) => error instanceof Failure && error.code === 'DATA_DIRECTORY_UNREADABLE' && message.test(error.message),
      )
    const covered = major === 18 ? 292 : 288
    for (let byte = 0; byte < covered + 4; byte++) {
      const flipped = Buffer.from(bytes)
      flipped[byte]! ^= 0x10
      refuses(flipped, byte >= 8 && byte < 12 ? /its version is/ : /its CRC is/)
    }
    refuses(bytes.subarray(0, 8191), /8191 bytes, expected 8192/)
    refuses(Buffer.alloc(0), /0 bytes/)
    const odd = Buffer.from(bytes)
    odd.writeUInt32LE(77, 16)
    odd.writeUInt32LE(crc32c(odd.subarray(0, covered)), covered)
    refuses(odd, /state/)
  })
}

test('pg_control says what pg_controldata says', { skip: await skipUnlessInstalled(15) }, async (t) => {
  const cluster = await testCluster(t, { major: 15, settings: { wal_level: 'logical' } })
  const program = toolPath(cluster.installation, 'pg_controldata')
  if (program === undefined) {
    t.skip('pg_controldata is not installed')
    return
  }
  await cluster.kill()
  const env = { ...process.env, LC_ALL: 'C', TZ: 'UTC' }
  const { stdout } = await execute(program, ['-D', cluster.directory], { env })
  const said = new Map(stdout.split('\n').map((line) => [line.split(':')[0]!, line.slice(line.indexOf(':') + 1).trim()]))
  const found = parseControlFile(await readFile(join(cluster.directory, 'global/pg_control')))
  assert.equal(said.get('Database system identifier'), String(found.systemIdentifier))
  assert.equal(said.get('Database cluster state'), found.state)
  assert.equal(said.get('wal_level setting'), found.walLevel)
  assert.equal(said.get('Minimum recovery ending location'), formatLsn(found.minRecoveryLsn))
  assert.equal(said.get("Latest checkpoint's REDO location"), formatLsn(found.redoLsn))
  assert.equal(said.get('pg_control version number'), String(found.controlVersion))
  assert.equal(said.get('Data page checksum version'), String(found.dataChecksumVersion))
  assert.equal(new Date(`${said.get('pg_control last modified')} UTC`).getTime(), found.time.getTime())
})
