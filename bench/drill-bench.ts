import { readFile, rm, writeFile } from 'node:fs/promises'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { makeCluster } from './cluster.ts'
import { settleDisk } from './machine.ts'
import { measureCommand } from './measured-command.ts'
import { spreadOf, type Figures, type Ratio } from './report.ts'
import { resusTool, runResus } from './resus.ts'

// `npm run bench -- --only drill [--size-mb 2048 --rounds 3]`: a drill with full amcheck, beside the restore alone, by turns.

export interface DrillSamples {
  readonly clusterBytes: number
  readonly figures: Figures
  readonly loads: readonly number[]
}

const drillSchema = z.object({
  verdict: z.literal('verified'),
  checks: z.array(z.object({ name: z.string(), seconds: z.number() })),
})

/** Seconds within which a drill of 2 GB has to be done on two cores. */
const LIMIT_SECONDS = 120

export async function benchDrill(options: {
  readonly home: string
  readonly sizeMb: number
  readonly rounds: number
  readonly onStep: (text: string) => void
}): Promise<DrillSamples> {
  const { home, sizeMb, rounds, onStep } = options
  onStep(`making a cluster of ${sizeMb} MB`)
  await using cluster = await makeCluster({ home: join(home, 'cluster'), sizeMb, archiveCommand: '/bin/true' })
  const own = join(home, 'resus')
  const tool = resusTool(own, cluster)
  await tool.reset()
  await addCheck(join(own, 'resus.yaml'))
  onStep('a full backup')
  await tool.backup('full')
  const figures: Record<string, number[]> = {}
  const note = (name: string, value: number) => (figures[name] ??= []).push(value)
  const loads: number[] = []
  for (let round = 0; round < rounds; round += 1) {
    loads.push(loadavg()[0]!)
    await settleDisk()
    onStep(`round ${round + 1} of ${rounds}: restore alone`)
    const to = join(home, 'restored')
    note('restore seconds', (await measureCommand(...runResus(own, ['restore', '--to', to]))).seconds)
    await rm(to, { recursive: true })
    await settleDisk()
    onStep(`round ${round + 1} of ${rounds}: drill`)
    const measured = await measureCommand(...runResus(own, ['drill', '--target', 'latest']))
    note('drill seconds', measured.seconds)
    for (const { name, seconds } of drillSchema.parse(JSON.parse(measured.stdout)).checks) note(`drill: ${name} seconds`, seconds)
  }
  return { clusterBytes: sizeMb * 1e6, figures, loads }
}

export function drillRatios({ figures }: DrillSamples): Ratio[] {
  const median = (name: string) => spreadOf(figures[name]!).median
  return [
    {
      name: 'drill with full amcheck: time, of the restore alone',
      value: median('drill seconds') / median('restore seconds'),
      target: '-',
    },
    { name: `drill: time, of ${LIMIT_SECONDS} s (for 2 GB)`, value: median('drill seconds') / LIMIT_SECONDS, target: '<= 1' },
  ]
}

/** Without a check of its own content no drill is verified. */
async function addCheck(path: string): Promise<void> {
  const configuration = JSON.parse(await readFile(path, 'utf8')) as { components: Record<string, object> }
  const checks = { sql: [{ name: 'patients', query: 'select count(*) from patients', expect: { least: 1 } }] }
  for (const [name, component] of Object.entries(configuration.components))
    configuration.components[name] = { ...component, checks }
  await writeFile(path, JSON.stringify(configuration))
}
