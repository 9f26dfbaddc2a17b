import { mkdir, rm } from 'node:fs/promises'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { makeCluster } from './cluster.ts'
import { listFiles } from './cluster-files.ts'
import { settleDisk } from './machine.ts'
import { archiveCommand, pgBackRestTool } from './pgbackrest.ts'
import { spreadOf, type Figures, type Ratio } from './report.ts'
import { resusTool } from './resus.ts'

// `npm run bench -- --only relations [--relations 10000 --rounds 3]`: a cluster of many small files, backed up and restored by turns by Resus and
// by pgBackRest, which bundles them.

/** The cluster has its many tables, and next to nothing else. */
const SIZE_MB = 30

export interface RelationsBenchOptions {
  readonly home: string
  readonly rounds: number
  readonly relations: number
  readonly pgBackRest: string
  readonly onStep: (text: string) => void
}

export interface RelationsSamples {
  readonly files: number
  readonly clusterBytes: number
  readonly figures: Figures
  readonly loads: readonly number[]
}

export async function benchRelations(options: RelationsBenchOptions): Promise<RelationsSamples> {
  const { home, rounds, relations, pgBackRest, onStep } = options
  const restHome = join(home, 'pgbackrest')
  onStep(`making a cluster of ${relations} tables`)
  await using cluster = await makeCluster({
    home: join(home, 'cluster'),
    sizeMb: SIZE_MB,
    relations,
    archiveCommand: archiveCommand(pgBackRest, restHome),
  })
  const files = listFiles(cluster.directory)
  const tools = [
    resusTool(join(home, 'resus'), cluster),
    pgBackRestTool(pgBackRest, { home: restHome, cluster, compression: 'zst' }),
  ]
  const figures: Record<string, number[]> = {}
  const note = (what: string, value: number) => (figures[what] ??= []).push(value)
  const loads: number[] = []
  for (let round = 0; round < rounds; round += 1) {
    loads.push(loadavg()[0]!)
    // Whoever goes first in one round goes last in the next.
    for (const tool of round % 2 === 0 ? tools : tools.toReversed()) {
      onStep(`round ${round + 1} of ${rounds}: ${tool.name}`)
      await tool.reset()
      await cluster.checkpoint()
      await settleDisk()
      const made = await tool.backup('full')
      note(`${tool.name} full of many files seconds`, made.seconds)
      note(`${tool.name} full of many files CPU seconds`, made.cpuSeconds)
      note(`${tool.name} full of many files stored bytes`, made.storedBytes)
      await settleDisk()
      await mkdir(join(home, 'restored'))
      const restored = await tool.restore(made, join(home, 'restored/data'))
      note(`${tool.name} restore of many files seconds`, restored.seconds)
      note(`${tool.name} restore of many files CPU seconds`, restored.cpuSeconds)
      await rm(join(home, 'restored'), { recursive: true })
    }
  }
  const clusterBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0)
  return { files: files.length, clusterBytes, figures, loads }
}

export function relationsRatios({ figures }: RelationsSamples): Ratio[] {
  const of = (name: string) => spreadOf(figures[name]!).median
  return ['full', 'restore'].map((what) => ({
    name: `${what} of many small files: as fast as pgBackRest with bundling`,
    value: of(`pgBackRest zst 1 ${what} of many files seconds`) / of(`Resus ${what} of many files seconds`),
    target: '>= 1',
  }))
}
