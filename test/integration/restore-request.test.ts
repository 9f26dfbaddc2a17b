import assert from 'node:assert/strict'
import { access, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { COMPLETE_FILE } from '../../src/protect/postgres/restore-place.ts'
import { RECOVERY_DIRECTORY } from '../../src/protect/postgres/data-directory.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

const skip = await skipUnlessInstalled(18)

test(
  'a restore that is whole is reported when it is asked for again, and refused to whoever asks for another',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await cluster.backup()
    const to = join(cluster.stateDirectory, '..', 'restored-again')
    const notices: string[] = []
    const restore = async (request?: string) =>
      cluster.restore({ kind: 'latest' }, to, {
        onNotice: (text) => notices.push(text),
        ...(request === undefined ? {} : { request }),
      })
    const first = await restore('task-1')
    const names = await readdir(to)
    assert.deepEqual(await restore('task-1'), first)
    assert.match(notices.join('\n'), /whole already/)
    assert.deepEqual(await readdir(to), names)
    for (const other of ['task-2', undefined]) await assert.rejects(restore(other), { code: 'DIRECTORY_NOT_EMPTY' })

    // Its node died between pg_control and the last step.
    await rm(join(to, RECOVERY_DIRECTORY, COMPLETE_FILE))
    await writeFile(join(to, RECOVERY_DIRECTORY, 'lock'), '')
    assert.deepEqual(await restore('task-1'), first)
    await access(join(to, RECOVERY_DIRECTORY, COMPLETE_FILE))
    await assert.rejects(access(join(to, RECOVERY_DIRECTORY, 'lock')), { code: 'ENOENT' })

    // Also when somebody has started it meanwhile.
    await using _started = await cluster.startRestored(first)
    assert.deepEqual(await restore('task-1'), first)
  },
)

test('what is not whole is restored, and another directory of the same name is another', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.backup()
  const to = join(cluster.stateDirectory, '..', 'restored-again')
  const restore = async () => cluster.restore({ kind: 'latest' }, to, { request: 'task-1' })
  const first = await restore()
  await rm(join(to, 'global/pg_control'))
  await rm(join(to, RECOVERY_DIRECTORY, COMPLETE_FILE))
  const second = await restore()
  assert(second.bytesWritten > 0)
  assert.equal(second.backup, first.backup)
  await rename(to, `${to}.aside`)
  await mkdir(join(to, 'global'), { recursive: true })
  await writeFile(join(to, 'global/pg_control'), '')
  await assert.rejects(restore(), { code: 'DIRECTORY_NOT_EMPTY' })
  await rm(to, { recursive: true })
  assert((await restore()).bytesWritten > 0)
})
