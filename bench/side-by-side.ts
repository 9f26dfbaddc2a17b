import { mkdir, rm } from 'node:fs/promises'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { assert } from '../src/assert.ts'
import { baseBackupTool, findBaseBackup } from './basebackup.ts'
import { makeCluster, readRestored, type BenchCluster, type ClusterContent } from './cluster.ts'
import { changedPages, hashPages, listFiles } from './cluster-files.ts'
import { measureDisk, measurePipeline, settleDisk } from './machine.ts'
import type { MeasuredCommand } from './measured-command.ts'
import { archiveCommand, pgBackRestTool } from './pgbackrest.ts'
import { resusTool } from './resus.ts'
import type { FullBackupTool, MeasuredBackup, Tool } from './tool.ts'

/** Of the pages of each table, before an incremental backup. */
const CHANGED_SHARE = 0.01

/** Everything that was measured, one number for each time, by what it is of. Seconds, bytes, bytes per second. */
export interface Samples {
  readonly clusterBytes: number
  readonly figures: Readonly<Record<string, readonly number[]>>
  /** Restored clusters that were started and held what the original does. */
  readonly compared: readonly string[]
  /** Processes that wanted a core, on average over the last minute, before each round and at the end. */
  readonly loads: readonly number[]
}

export interface SideBySideOptions {
  readonly home: string
  readonly sizeMb: number
  readonly rounds: number
  readonly pgBackRest: string
  readonly onStep: (text: string) => void
}

/** Runs the tools by turns, and the machine's limits between them, on one cluster. The cluster is stopped at the end. */
export async function compareSideBySide(options: SideBySideOptions): Promise<Samples> {
  const { home, rounds, onStep } = options
  const restHome = join(home, 'pgbackrest')
  onStep(`making a cluster of ${options.sizeMb} MB`)
  await using cluster = await makeCluster({
    home: join(home, 'cluster'),
    sizeMb: options.sizeMb,
    archiveCommand: archiveCommand(options.pgBackRest, restHome),
  })
  const run = new Run(options, cluster)
  const resus = resusTool(join(home, 'resus'), cluster)
  const rest = (compression: 'zst' | 'gz') => pgBackRestTool(options.pgBackRest, { home: restHome, cluster, compression })
  const fast = rest('zst')
  const program = findBaseBackup(cluster)
  const base = program === undefined ? undefined : baseBackupTool(program, { home: join(home, 'basebackup'), cluster })

  for (let round = 0; round < rounds; round++) {
    run.round(round)
    // Whoever goes first in one round goes last in the next.
    const tools = round % 2 === 0 ? [resus, fast] : [fast, resus]
    const content = round === 0 ? await cluster.content() : undefined
    await run.machine()
    const fulls = new Map<Tool, MeasuredBackup>()
    for (const tool of tools) fulls.set(tool, await run.full(tool))
    if (base !== undefined) await run.full(base)
    for (const tool of tools) await run.restore(tool, fulls.get(tool)!, content)
    await run.incrementals(tools, round)
  }
  // Once, and last: it takes several times as long as the others.
  await run.full(rest('gz'))
  run.loads.push(loadavg()[0]!)
  return { clusterBytes: run.clusterBytes, figures: run.figures, compared: run.compared, loads: run.loads }
}

class Run {
  readonly figures: Record<string, number[]> = {}
  readonly compared: string[] = []
  readonly loads: number[] = []
  readonly clusterBytes: number
  readonly #options: SideBySideOptions
  readonly #cluster: BenchCluster
  #round = 0

  constructor(options: SideBySideOptions, cluster: BenchCluster) {
    this.#options = options
    this.#cluster = cluster
    this.clusterBytes = listFiles(cluster.directory).reduce((sum, file) => sum + file.sizeBytes, 0)
  }

  round(round: number): void {
    this.#round = round
    this.loads.push(loadavg()[0]!)
  }

  async machine(): Promise<void> {
    this.#step('the machine')
    await settleDisk()
    this.#note('machine pipeline bytes/s', await measurePipeline(this.#cluster.directory))
    await settleDisk()
    const disk = await measureDisk(join(this.#options.home, 'written'), this.clusterBytes)
    this.#note('machine write seconds', disk.writeSeconds)
    this.#note('machine read seconds', disk.readSeconds)
  }

  async full(tool: FullBackupTool): Promise<MeasuredBackup> {
    this.#step(`${tool.name}, full`)
    await tool.reset()
    return await this.#measured(tool, 'full', () => tool.backup('full'))
  }

  async incrementals(tools: readonly Tool[], round: number): Promise<void> {
    this.#step('changing pages')
    const before = hashPages(this.#cluster.directory)
    await this.#cluster.changePages(CHANGED_SHARE, round)
    const changed = changedPages(this.#cluster.directory, before)
    this.#note('changed share of pages', changed.pages / changed.ofPages)
    this.#note('changed pages compressed bytes', changed.compressedBytes)
    for (const tool of tools) {
      this.#step(`${tool.name}, incremental`)
      await this.#measured(tool, 'incremental', () => tool.backup('incremental'))
    }
  }

  /** With `content`, the restored cluster is started and has to hold it. */
  async restore(tool: Tool, backup: MeasuredBackup, content: ClusterContent | undefined): Promise<void> {
    this.#step(`${tool.name}, restore`)
    const home = join(this.#options.home, 'restored')
    const directory = join(home, 'data')
    await rm(home, { recursive: true, force: true })
    await mkdir(home)
    await settleDisk()
    this.#noteCommand(`${tool.name} restore`, await tool.restore(backup, directory))
    if (content !== undefined) {
      const found = await readRestored({ directory, home }, this.#cluster.installation)
      const same = JSON.stringify(found) === JSON.stringify(content)
      assert(same, `what ${tool.name} restored is what it backed up: ${JSON.stringify({ found, content })}`)
      this.compared.push(tool.name)
    }
    await rm(home, { recursive: true })
  }

  async #measured(
    { name }: FullBackupTool,
    type: 'full' | 'incremental',
    backup: () => Promise<MeasuredBackup>,
  ): Promise<MeasuredBackup> {
    await this.#cluster.checkpoint()
    await settleDisk()
    const made = await backup()
    this.#noteCommand(`${name} ${type}`, made)
    this.#note(`${name} ${type} stored bytes`, made.storedBytes)
    return made
  }

  #noteCommand(what: string, { seconds, cpuSeconds, peakBytes }: MeasuredCommand): void {
    this.#note(`${what} seconds`, seconds)
    this.#note(`${what} CPU seconds`, cpuSeconds)
    this.#note(`${what} peak bytes`, peakBytes)
  }

  #note(what: string, value: number): void {
    ;(this.figures[what] ??= []).push(value)
  }

  #step(what: string): void {
    this.#options.onStep(`round ${this.#round + 1} of ${this.#options.rounds}: ${what}`)
  }
}
