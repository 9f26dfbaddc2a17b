import assert from 'node:assert/strict'
import { glob, readFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url))

test('the reference hospital imports nothing of Resus, and Resus nothing of it', async () => {
  const crossing: string[] = []
  let imports = 0
  for await (const file of glob('{src,hospital}/**/*.ts', { cwd: CHECKOUT })) {
    const text = await readFile(join(CHECKOUT, file), 'utf8')
    for (const [, named = ''] of text.matchAll(/(?:from|import\()\s*'([^']+)'/g)) {
      imports += 1
      const target = named.startsWith('.') ? relative(CHECKOUT, join(CHECKOUT, dirname(file), named)) : named
      const isHospitals = target.startsWith('hospital/') || target.startsWith('@resus/')
      const isResus = /^(?:src|test|bench)\//.test(target)
      if (file.startsWith('hospital/') ? isResus : isHospitals) crossing.push(`${file}: ${named}`)
    }
  }
  assert.ok(imports > 100, `${imports} imports were looked at`)
  assert.deepEqual(crossing, [])
})
