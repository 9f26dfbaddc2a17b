import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import type { Installation } from '../src/postgres/installation.ts'
import type { BenchCluster } from './cluster.ts'
import { measureCommand } from './measured-command.ts'
import type { Tool } from './tool.ts'

const RESUS = fileURLToPath(new URL('../resus', import.meta.url))

const backupReport = z.object({ id: z.string(), bytesStored: z.number(), corruptPages: z.array(z.unknown()).length(0) })

export const BENCH_PASSPHRASE = 'only for this bench'
export const BENCH_SYSTEM = 'bench-his'

/** The program and arguments of a command of Resus in such a home. */
export function runResus(home: string, args: readonly string[]): [program: string, args: readonly string[]] {
  return [RESUS, [...args, '--json', '--config', join(home, 'resus.yaml')]]
}

/** Resus by its command line, as README.md shows it: an encrypted repository in a directory. */
export function resusTool(home: string, cluster: BenchCluster): Tool {
  const run = (args: readonly string[]) => measureCommand(...runResus(home, args))
  return {
    name: 'Resus',
    reset: async () => {
      await rm(home, { recursive: true, force: true })
      await mkdir(home)
      await writeBenchConfiguration(home, cluster)
      await run(['init'])
    },
    backup: async (type) => {
      const measured = await run(['backup', '--type', type])
      const { id, bytesStored } = backupReport.parse(JSON.parse(measured.stdout))
      return { ...measured, id, storedBytes: bytesStored }
    },
    // To the end of all WAL: of the newest backup there is no more than a moment's.
    restore: (_backup, directory) => run(['restore', '--to', directory]),
  }
}

/** Writes the configuration of a repository in `home` that protects one component, and its passphrase. Gives its path. */
export async function writeBenchConfiguration(
  home: string,
  cluster: { connectionString: string; directory: string; installation: Installation },
  stream?: { synchronous: boolean; slot: string; acknowledge: 'spool' | 'repository' },
): Promise<string> {
  const passphrase = join(home, 'passphrase')
  const component = {
    kind: 'postgres',
    tier: 'critical',
    connection: cluster.connectionString,
    dataDirectory: cluster.directory,
    binaries: cluster.installation.binDirectory,
    ...(stream === undefined ? {} : { stream }),
  }
  const configuration = {
    system: BENCH_SYSTEM,
    state: join(home, 'state'),
    repository: {
      storages: [{ name: 'main', kind: 'directory', path: join(home, 'repository') }],
      key: { passphrase: `file:${passphrase}` },
    },
    components: { 'his-db': component },
  }
  const path = join(home, 'resus.yaml')
  await writeFile(passphrase, BENCH_PASSPHRASE, { mode: 0o600 })
  // JSON is YAML.
  await writeFile(path, JSON.stringify(configuration))
  return path
}
