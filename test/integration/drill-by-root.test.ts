import assert from 'node:assert/strict'
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { isConfined, rehearse } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

// `npm test` runs as an ordinary user, even for root. This one is run by root itself:
//   node_modules/.bin/node --test test/integration/drill-by-root.test.ts

for (const major of [18, 15]) {
  const skip =
    process.getuid?.() === 0
      ? await skipUnlessInstalled(major)
      : 'only root can be somebody else: run this file by root, as its first lines say'

  test(`PostgreSQL ${major}: a drill by root runs the server as a user that owns nothing else`, { skip }, async (t) => {
    await using cluster = await protectedCluster(t, { major })
    await cluster.query('create table patients as select i as id from generate_series(1, 1000) i')
    await cluster.backup()
    // The account has to come through.
    const scratchRoot = await mkdtemp(join(tmpdir(), 'resus-drill-'))
    t.after(() => rm(scratchRoot, { recursive: true, force: true }))
    await chmod(scratchRoot, 0o711)
    const patients = { name: 'patients', query: 'select count(*) from patients', expect: { equals: 1000 } }
    const { predicate, found } = await rehearse(cluster, { sql: [patients] }, { scratchRoot })
    assert.equal(predicate.verdict, 'verified', predicate.why)
    assert.equal(found('recovery').verdict, 'verified')
    const fact = predicate.isolation.find(({ what }) => what === 'a user of its own')
    t.diagnostic(JSON.stringify(predicate.isolation, null, 1))
    assert.equal(fact?.holds, true, fact?.why)
    assert.ok(isConfined(predicate))
    assert.ok(predicate.leftovers.removed, predicate.leftovers.seen)
    assert.deepEqual(await readdir(scratchRoot), [])
  })
}
