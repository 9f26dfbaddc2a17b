import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { VERBS } from '../src/cli/verbs.ts'
import { loadConfiguration } from '../src/config/configuration.ts'
import { containerFile } from './services/container-file.ts'

const execute = promisify(execFile)
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

/** The verb that a command line begins with has to be one, and each of its flags, too. */
function assertCommandLine(line: readonly string[], where: string): void {
  const [name, ...rest] = line
  const verb = VERBS.find((each) => each.name === name)
  assert(verb !== undefined, `${where}: ${line.join(' ')}`)
  const known = new Set(['--json', '--progress', '--config', ...(verb.options ?? []).map(([flags]) => flags.split(' ')[0])])
  for (const flag of rest.filter((each) => each.startsWith('--'))) assert(known.has(flag), `${where}: ${name} ${flag}`)
}

async function units(): Promise<Map<string, string>> {
  const names = await readdir(`${ROOT}/deploy/systemd`)
  return new Map(
    await Promise.all(names.map(async (name) => [name, await readFile(`${ROOT}/deploy/systemd/${name}`, 'utf8')] as const)),
  )
}

test('units run verbs that there are, as the account of the server, and may write where the documents say', async () => {
  const all = await units()
  assert.equal(all.size, 8)
  for (const [name, text] of all) {
    if (name.endsWith('.timer')) {
      assert(all.has(name.replace('.timer', '.service')), name)
      assert.match(text, /^Persistent=true$/m, name)
      continue
    }
    const [, line = ''] = /^ExecStart=\/opt\/resus\/resus (.*)$/m.exec(text) ?? []
    assertCommandLine(line.split(' '), name)
    for (const wanted of [
      'User=postgres',
      'ProtectSystem=strict',
      'NoNewPrivileges=yes',
      'KillMode=mixed',
      'TimeoutStopSec=180',
    ]) {
      assert.match(text, new RegExp(`^${wanted}$`, 'm'), `${name}: ${wanted}`)
    }
    assert.match(text, /^ReadWritePaths=\/var\/lib\/resus \/mnt\/backup\/resus$/m, name)
    // It would end the JavaScript engine at its start.
    assert.doesNotMatch(text, /^MemoryDenyWriteExecute=(yes|true|1)/m, name)
  }
})

test('systemd takes the units', { skip: !existsSync('/usr/bin/systemd-analyze') && 'there is no systemd-analyze' }, async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'resus-units-'))
  t.after(() => rm(home, { recursive: true }))
  for (const [name, text] of await units()) await writeFile(join(home, name), text.replaceAll('/opt/resus/resus', '/bin/true'))
  const paths = [...(await units()).keys()].map((name) => join(home, name))
  const verified = execute('systemd-analyze', ['verify', '--man=no', ...paths])
  const said = await verified.catch((error: { stdout: string; stderr: string }) => error)
  // It also reads the units of this system, which are none of ours.
  const ours = (said.stdout + said.stderr).split('\n').filter((line) => line.includes('resus'))
  assert.deepEqual(ours, [])
})

test('the image copies what there is, and its command line is one', async () => {
  const image = await containerFile(ROOT)
  for (const { sources } of image.copies) for (const source of sources) assert(existsSync(join(ROOT, source)), source)
  assert.deepEqual(image.entryPoint, ['/opt/resus/resus'])
  assertCommandLine(image.command, 'Containerfile')
})

test('the compose file and the CronJob run one backup at a time, with nothing but what it needs', async (t) => {
  const compose = parse(await readFile(`${ROOT}/deploy/container/compose.backup.yaml`, 'utf8'), { merge: true }) as {
    services: Record<string, { command: string[]; volumes: string[]; restart: string; cap_drop: string[]; read_only: boolean }>
  }
  for (const [name, service] of Object.entries(compose.services)) {
    assertCommandLine(service.command, `compose: ${name}`)
    assert.deepEqual([service.restart, service.cap_drop, service.read_only], ['no', ['ALL'], true])
    assert(service.volumes.includes('database:/var/lib/postgresql/data:ro'))
  }
  const job = parse(await readFile(`${ROOT}/deploy/kubernetes/backup-cronjob.yaml`, 'utf8')) as {
    kind: string
    spec: {
      concurrencyPolicy: string
      jobTemplate: {
        spec: { template: { spec: Record<string, unknown> & Record<'containers' | 'initContainers', PodContainer[]> } }
      }
    }
  }
  const pod = job.spec.jobTemplate.spec.template.spec
  assert.deepEqual([job.kind, job.spec.concurrencyPolicy, pod.restartPolicy], ['CronJob', 'Forbid', 'Never'])
  assert('affinity' in pod)
  assert(!('fsGroup' in (pod.securityContext as object)))
  const volumes = new Set((pod.volumes as { name: string }[]).map(({ name }) => name))
  for (const { args, name, volumeMounts } of [...pod.initContainers, ...pod.containers]) {
    assertCommandLine(args, `CronJob: ${name}`)
    for (const mount of volumeMounts) assert(volumes.has(mount.name), mount.name)
    assert.equal(volumeMounts.find((mount) => mount.name === 'data')?.readOnly, true)
  }
  const home = await mkdtemp(join(tmpdir(), 'resus-container-'))
  t.after(() => rm(home, { recursive: true }))
  await copyFile(`${ROOT}/deploy/container/resus.yaml`, join(home, 'resus.yaml'))
  const configuration = await loadConfiguration(join(home, 'resus.yaml'))
  const mounts = pod.containers[0]!.volumeMounts.map(({ mountPath }) => mountPath)
  const used = [configuration.components[0]!.dataDirectory, configuration.repository.storages[0]!.path]
  for (const path of used) assert(mounts.includes(path), path)
})

interface PodContainer {
  readonly name: string
  readonly args: string[]
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[]
}
