import { mkdir, rm } from 'node:fs/promises'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { assert } from '../src/assert.ts'
import { listBackups, type BackupManifest } from '../src/repository/backups.ts'
import { syncIndex } from '../src/repository/index-sync.ts'
import { ReferenceWalker } from '../src/repository/references.ts'
import { openRepository, type Repository } from '../src/repository/repository.ts'
import { Secret } from '../src/secret.ts'
import { DirectoryStorage } from '../src/storage/directory-storage.ts'
import { makeCluster, readRestored } from './cluster.ts'
import { listFiles } from './cluster-files.ts'
import { settleDisk } from './machine.ts'
import { measureCommand, type MeasuredCommand } from './measured-command.ts'
import { spreadOf, type Figures, type Ratio } from './report.ts'
import { BENCH_PASSPHRASE, BENCH_SYSTEM, resusTool, runResus } from './resus.ts'

// `npm run bench -- --only incrementals [--incrementals 50 --incrementals-mb 500 --rounds 3]`: a full backup, so many incrementals with 1 % of the
// pages of each table changed before each, and restores of the first and of the last, by turns.

const CHANGED_SHARE = 0.01
const COMPONENT = 'his-db'

export interface IncrementalsBenchOptions {
  readonly home: string
  readonly rounds: number
  readonly sizeMb: number
  readonly incrementals: number
  readonly onStep: (text: string) => void
}

export interface IncrementalsSamples {
  readonly incrementals: number
  readonly clusterBytes: number
  readonly figures: Figures
  readonly loads: readonly number[]
}

export async function benchIncrementals(options: IncrementalsBenchOptions): Promise<IncrementalsSamples> {
  const { home, rounds, sizeMb, incrementals, onStep } = options
  onStep(`making a cluster of ${sizeMb} MB`)
  await using cluster = await makeCluster({ home: join(home, 'cluster'), sizeMb, archiveCommand: 'true' })
  const resus = resusTool(join(home, 'resus'), cluster)
  const figures: Record<string, number[]> = {}
  const note = (what: string, value: number) => (figures[what] ??= []).push(value)
  const loads: number[] = [loadavg()[0]!]

  await resus.reset()
  onStep('full')
  note('chain full stored bytes', (await resus.backup('full')).storedBytes)
  for (let number = 1; number <= incrementals; number += 1) {
    onStep(`incremental ${number} of ${incrementals}`)
    await cluster.changePages(CHANGED_SHARE, number)
    const made = await resus.backup('incremental')
    note('chain incremental seconds', made.seconds)
    note('chain incremental stored bytes', made.storedBytes)
  }
  const content = await cluster.content()
  const [last, first] = await firstAndLast(join(home, 'resus'), incrementals, note)

  for (let round = 0; round < rounds; round += 1) {
    loads.push(loadavg()[0]!)
    const turns = [
      { name: 'full', id: first },
      { name: 'last incremental', id: last },
    ]
    for (const { name, id } of round % 2 === 0 ? turns : turns.toReversed()) {
      onStep(`round ${round + 1} of ${rounds}: restore of the ${name}`)
      const above = join(home, 'restored')
      await mkdir(above)
      await settleDisk()
      const restored: MeasuredCommand = await measureCommand(
        ...runResus(join(home, 'resus'), ['restore', '--to', join(above, 'data'), '--backup', id]),
      )
      note(`restore of the ${name} seconds`, restored.seconds)
      note(`restore of the ${name} CPU seconds`, restored.cpuSeconds)
      if (round === 0 && id === last) {
        const found = await readRestored({ directory: join(above, 'data'), home: above }, cluster.installation)
        assert(JSON.stringify(found) === JSON.stringify(content), 'the last incremental is restored as the cluster is')
      }
      await rm(above, { recursive: true })
    }
  }
  const clusterBytes = listFiles(cluster.directory).reduce((sum, file) => sum + file.sizeBytes, 0)
  return { incrementals, clusterBytes, figures, loads }
}

/** Notes what a restore of each decompresses; gives their ids, the newest first. */
async function firstAndLast(
  home: string,
  incrementals: number,
  note: (what: string, value: number) => void,
): Promise<readonly [last: string, first: string]> {
  const storage = new DirectoryStorage(join(home, 'repository'))
  const repository = await openRepository({ storage, passphrase: new Secret(BENCH_PASSPHRASE), system: BENCH_SYSTEM })
  const backups = await listBackups(repository, COMPONENT)
  const [last, first] = [backups[0]!, backups.at(-1)!]
  assert(backups.length === incrementals + 1 && first.type === 'full', 'a full backup and the incrementals behind it')
  note('restore of the full decompressed bytes', await decompressedBytes(home, repository, first))
  note('restore of the last incremental decompressed bytes', await decompressedBytes(home, repository, last))
  return [last.id, first.id]
}

/** All blobs that a backup refers to, decompressed: what a restore reads at most. */
async function decompressedBytes(home: string, repository: Repository, backup: BackupManifest): Promise<number> {
  const { signal } = new AbortController()
  const index = await syncIndex({ repository, stateDirectory: join(home, 'bench-state'), signal })
  const walker = new ReferenceWalker(repository, index)
  try {
    let bytes = 0
    for await (const { rawBytes } of walker.walk(backup, signal)) bytes += rawBytes
    return bytes
  } finally {
    walker.close()
  }
}

export function incrementalsRatios({ figures, incrementals }: IncrementalsSamples): Ratio[] {
  const of = (name: string) => spreadOf(figures[name]!).median
  const ratio = (what: string) => of(`restore of the last incremental ${what}`) / of(`restore of the full ${what}`)
  return [
    {
      name: `restore of incremental ${incrementals}: bytes decompressed, of a full`,
      value: ratio('decompressed bytes'),
      target: '<= 1.6',
    },
    { name: `restore of incremental ${incrementals}: time, of a full`, value: ratio('seconds'), target: '<= 1.3' },
  ]
}
