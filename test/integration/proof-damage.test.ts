import assert from 'node:assert/strict'
import { readdir, rm } from 'node:fs/promises'
import test from 'node:test'
import { parseLsn } from '../../src/postgres/lsn.ts'
import { coverage, readNote, type WalObject } from '../../src/repository/wal-archive.ts'
import { damagedRepository, type DamagedRepository } from '../faults/damaged-repository.ts'
import { Random, testSeed } from '../faults/random.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { checkNamed, outcomes, prove, scratchRootOf } from '../services/proving.ts'

const AFTER_RESTORE = [
  'files',
  'pg_verifybackup',
  'recovery',
  'tables (amcheck)',
  'indexes (amcheck)',
  'clean stop',
  'page checksums',
  'pg_checksums',
]
/** So many segments a restore fetches at once: what is damaged behind them is found by the server only. */
const FETCHED_AHEAD = 8

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: what was damaged in the repository is proven to fail, and nothing that depends on it passes`,
    { skip },
    async (t) => {
      const random = new Random(testSeed(t))
      const stored = await damagedRepository(t, major)
      const { cluster, incremental, full } = stored
      const skipped = AFTER_RESTORE.map((name) => `${name}: skipped`)

      const pack = random.pick(stored.packs.get(full.id)!)
      const within = random.pick(await stored.uniqueBlobs(pack))
      await stored.whileFlipped({ key: pack, within, random, t }, async () => {
        const verdict = await prove(cluster, { target: { kind: 'backup', backup: full.id } })
        assert.deepEqual([verdict.verdict, ...outcomes(verdict)], ['failed', 'restore: failed', ...skipped])
        assert.match(checkNamed(verdict, 'restore').found, new RegExp(pack))
      })

      await stored.whileGone([pack], async () => {
        await rm(cluster.stateDirectory, { recursive: true })
        const verdict = await prove(cluster, { target: { kind: 'backup', backup: full.id } })
        assert.deepEqual([verdict.verdict, ...outcomes(verdict)], ['failed', 'restore: failed', ...skipped])
      })
      await rm(cluster.stateDirectory, { recursive: true })

      const manifest = (await stored.keys('backups/')).find((key) => key.endsWith(incremental.id))!
      await stored.whileFlipped({ key: manifest, random, t }, async () => {
        const verdict = await prove(cluster, { target: { kind: 'backup', backup: incremental.id } })
        assert.deepEqual(
          [verdict.verdict, verdict.fingerprint, ...outcomes(verdict)],
          ['failed', null, 'restore: failed', ...skipped],
        )
      })

      const quiet = await readByTheServerOnly(stored)
      const { key } = random.pick(quiet)
      const headEnd = await stored.headEndOf(key)
      await stored.whileFlipped({ key, within: [headEnd, await stored.sizeOf(key)], random, t }, async () => {
        const verdict = await prove(cluster)
        assert.equal(verdict.verdict, 'failed')
        assert.equal(checkNamed(verdict, 'files').verdict, 'verified')
        assert.match(checkNamed(verdict, 'recovery').found, /object ".*" is damaged|could not restore file/)
        for (const name of AFTER_RESTORE.slice(3)) assert.equal(checkNamed(verdict, name).verdict, 'skipped', name)
        // The backup itself needs none of that WAL.
        const itself = await prove(cluster, { target: { kind: 'backup', backup: incremental.id } })
        assert.equal(itself.verdict, 'verified', JSON.stringify(itself.checks))
      })
      // Its note is read before anything is restored.
      await stored.whileFlipped({ key, within: [36, headEnd], random, t }, async () => {
        const verdict = await prove(cluster)
        assert.deepEqual([verdict.verdict, ...outcomes(verdict)], ['failed', 'restore: failed', ...skipped])
        assert.match(checkNamed(verdict, 'restore').found, /object ".*" is damaged/)
      })

      // A hole: the WAL to the end is not there, though the backup is.
      await stored.whileGone(await stored.keys(key.replace(/\.[^/]*$/, '')), async () => {
        const verdict = await prove(cluster)
        assert.deepEqual(
          [verdict.verdict, verdict.backup, ...outcomes(verdict)],
          ['failed', incremental.id, 'restore: failed', ...skipped],
        )
        assert.match(checkNamed(verdict, 'restore').found, /there is a gap in the WAL/)
      })
      assert.equal((await prove(cluster)).verdict, 'verified')
      assert.deepEqual(await readdir(scratchRootOf(cluster)), [])
    },
  )
}

/** Whole segments that nothing reads before the server asks for them. */
async function readByTheServerOnly({ cluster, branch, incremental }: DamagedRepository): Promise<WalObject[]> {
  const { objects } = await coverage(cluster.repository, branch, parseLsn(incremental.stopLsn))
  const isPiece = ({ from, to }: WalObject) => to - from < branch.head.segmentSize
  const notes = await Promise.all(objects.map(async (object) => await readNote(cluster.repository, branch, object)))
  // Where a tablespace may be made the planning reads the WAL, with what lies before and behind it; and so it does with pieces.
  const isPlanned = objects.map((object, at) => isPiece(object) || notes[at]!.tablespaces)
  return objects.filter((_, at) => at >= FETCHED_AHEAD && ![at - 1, at, at + 1].some((near) => isPlanned[near] ?? true))
}
