import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

interface Rules {
  readonly groups: readonly {
    readonly rules: readonly {
      readonly alert: string
      readonly expr: string
      readonly annotations: { readonly summary: string; readonly description: string }
    }[]
  }[]
}

test('alert rules ask for metrics, labels and figures that there are', async () => {
  const source = await readFile(`${ROOT}/src/server/http/metrics-routes.ts`, 'utf8')
  const metrics = new Set([...source.matchAll(/'(resus_\w+)'/g)].map(([, name]) => name))
  assert(metrics.size > 20, `${metrics.size} metrics`)
  const figures = await readFile(`${ROOT}/src/server/health-looks.ts`, 'utf8')
  let rules = 0
  for (const name of (await readdir(`${ROOT}/deploy/prometheus`)).filter((each) => each.endsWith('.yaml'))) {
    const { groups } = parse(await readFile(`${ROOT}/deploy/prometheus/${name}`, 'utf8')) as Rules
    for (const { alert, expr, annotations } of groups.flatMap((group) => group.rules)) {
      rules += 1
      const asked = [...expr.matchAll(/\bresus_\w+/g)].map(([metric]) => metric)
      assert(asked.length > 0, alert)
      for (const metric of asked) assert(metrics.has(metric), `${alert}: ${metric}`)
      for (const [, figure] of expr.matchAll(/figure="(\w+)"/g)) assert.match(figures, new RegExp(`\\b${figure}\\b`), alert)
      assert.match(annotations.summary + annotations.description, /\w/)
    }
  }
  assert(rules >= 10, `${rules} rules`)
})
