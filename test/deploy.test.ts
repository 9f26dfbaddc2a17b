import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
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

interface Dashboard {
  readonly uid: string
  readonly title: string
  readonly templating: { readonly list: readonly { readonly name: string; readonly definition?: string }[] }
  readonly panels: readonly {
    readonly id: number
    readonly title: string
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
    readonly targets: readonly { readonly expr: string; readonly refId: string }[]
  }[]
}

const GRAFANA = `${ROOT}/deploy/grafana`
const DASHBOARDS = ['Resus: backup status', 'Resus: database health', 'Resus: facilities', 'Resus: system overview']

async function dashboards(): Promise<Dashboard[]> {
  const names = (await readdir(GRAFANA)).filter((name) => name.endsWith('.json')).toSorted()
  return await Promise.all(names.map(async (name) => JSON.parse(await readFile(`${GRAFANA}/${name}`, 'utf8')) as Dashboard))
}

/** Names of metrics, with those that Prometheus makes of a histogram. */
async function knownMetrics(): Promise<Set<string>> {
  const sources = ['http/metrics-routes.ts', 'task-figures.ts'].map((name) => readFile(`${ROOT}/src/server/${name}`, 'utf8'))
  const names = (await Promise.all(sources)).flatMap((source) => [...source.matchAll(/'(resus_\w+)'/g)].map(([, name]) => name!))
  const histograms = names.filter((name) => name.endsWith('_duration_seconds')).map((name) => `${name}_bucket`)
  return new Set([...names, ...histograms])
}

function assertKnown(
  expr: string,
  known: { readonly metrics: ReadonlySet<string>; readonly figures: string },
  where: string,
): void {
  const asked = [...expr.matchAll(/\bresus_\w+/g)].map(([metric]) => metric)
  assert(asked.length > 0, where)
  for (const metric of asked) assert(known.metrics.has(metric), `${where}: ${metric}`)
  for (const [, figure] of expr.matchAll(/figure="(\w+)"/g)) assert.match(known.figures, new RegExp(`\\b${figure}\\b`), where)
}

test('dashboards ask for metrics, labels and figures that there are, and no panel lies on another', async () => {
  const known = { metrics: await knownMetrics(), figures: await readFile(`${ROOT}/src/server/health-looks.ts`, 'utf8') }
  const all = await dashboards()
  assert.deepEqual(all.map(({ title }) => title).toSorted(), DASHBOARDS)
  assert.equal(new Set(all.map(({ uid }) => uid)).size, all.length)
  for (const { title, panels, templating } of all) {
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length)
    for (const { definition } of templating.list) if (definition !== undefined) assertKnown(definition, known, title)
    const taken = new Set<string>()
    for (const panel of panels) {
      assert.match(panel.title, /\w/)
      for (const { expr } of panel.targets) assertKnown(expr, known, `${title}, ${panel.title}`)
      const { x, y, w, h } = panel.gridPos
      assert(x + w <= 24, panel.title)
      for (let place = 0; place < w * h; place += 1) {
        const cell = `${x + (place % w)} ${y + Math.floor(place / w)}`
        assert(!taken.has(cell), `${title}, ${panel.title}`)
        taken.add(cell)
      }
    }
  }
})

const promtool = await promisify(execFile)('promtool', ['--version']).then(
  () => false,
  () => 'promtool is not installed: the package "prometheus" has it',
)

test('Prometheus itself takes every rule, and every expression of the dashboards', { skip: promtool }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'resus-promtool-'))
  t.after(() => rm(directory, { recursive: true }))
  const exprs = (await dashboards()).flatMap(({ panels }) => panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)))
  assert(exprs.length > 40, `${exprs.length} expressions`)
  const rules = exprs.map((expr, index) => ({ record: `dashboard:${index}`, expr: expr.replaceAll(/\$\w+/g, '.*') }))
  const path = join(directory, 'dashboards.yaml')
  await writeFile(path, JSON.stringify({ groups: [{ name: 'dashboards', rules }] }))
  const check = async (...files: string[]) => promisify(execFile)('promtool', ['check', 'rules', ...files])
  await check(path, `${ROOT}/deploy/prometheus/resus.rules.yaml`)
  await writeFile(path, JSON.stringify({ groups: [{ name: 'broken', rules: [{ record: 'broken', expr: 'sum by (a (b)' }] }] }))
  await assert.rejects(check(path), /broken|parse/)
})

test('alert rules ask for metrics, labels and figures that there are', async () => {
  const metrics = await knownMetrics()
  assert(metrics.size > 20, `${metrics.size} metrics`)
  const figures = await readFile(`${ROOT}/src/server/health-looks.ts`, 'utf8')
  let rules = 0
  for (const name of (await readdir(`${ROOT}/deploy/prometheus`)).filter((each) => each.endsWith('.yaml'))) {
    const { groups } = parse(await readFile(`${ROOT}/deploy/prometheus/${name}`, 'utf8')) as Rules
    for (const { alert, expr, annotations } of groups.flatMap((group) => group.rules)) {
      rules += 1
      assertKnown(expr, { metrics, figures }, alert)
      assert.match(annotations.summary + annotations.description, /\w/)
    }
  }
  assert(rules >= 10, `${rules} rules`)
})
