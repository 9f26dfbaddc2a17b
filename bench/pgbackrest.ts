import { existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { delimiter, join } from 'node:path'
import { z } from 'zod'
import { treeBytes } from './cluster-files.ts'
import type { BenchCluster } from './cluster.ts'
import { measureCommand } from './measured-command.ts'
import type { Tool } from './tool.ts'

const STANZA = 'bench'

/** `zst`: its fastest encrypted setting. `gz`: the compression that it has by default (level 6); all else as in the other. */
export type Compression = 'zst' | 'gz'

const COMPRESSION_SETTINGS = {
  zst: ['compress-type=zst', 'compress-level=1'],
  gz: [],
} as const satisfies Record<Compression, readonly string[]>

const info = z.tuple([z.object({ backup: z.array(z.object({ label: z.string() })).nonempty() })])

/** The program's path; undefined where it is not installed. */
export function findPgBackRest(): string | undefined {
  const directories = [...(process.env.PATH ?? '').split(delimiter), '/usr/bin', '/usr/local/bin']
  return directories.map((directory) => join(directory, 'pgbackrest')).find((path) => existsSync(path))
}

/** Its archive_command: gives WAL to whichever repository is in `home` at the time, and drops it while there is none. */
export function archiveCommand(program: string, home: string): string {
  return `test ! -f ${home}/pgbackrest.conf || ${program} --config=${home}/pgbackrest.conf --stanza=${STANZA} archive-push %p`
}

/** pgBackRest with a repository in `home`. One at a time: the next one's reset removes it. */
export function pgBackRestTool(
  program: string,
  options: { home: string; cluster: BenchCluster; compression: Compression },
): Tool {
  const { home, cluster, compression } = options
  const run = (args: readonly string[]) =>
    measureCommand(program, [`--config=${join(home, 'pgbackrest.conf')}`, `--stanza=${STANZA}`, ...args])
  return {
    name: compression === 'zst' ? 'pgBackRest zst 1' : 'pgBackRest gz 6',
    reset: async () => {
      await rm(home, { recursive: true, force: true })
      for (const name of ['repo', 'lock', 'log', 'spool']) await mkdir(join(home, name), { recursive: true })
      await writeFile(join(home, 'pgbackrest.conf'), settings(home, cluster, compression))
      await run(['stanza-create'])
    },
    backup: async (type) => {
      const measured = await run([`--type=${type === 'full' ? 'full' : 'incr'}`, 'backup'])
      const listed = await run(['--output=json', 'info'])
      const label = info.parse(JSON.parse(listed.stdout))[0].backup.at(-1)!.label
      return { ...measured, id: label, storedBytes: await treeBytes(join(home, 'repo/backup', STANZA, label)) }
    },
    restore: async (backup, directory) => {
      await mkdir(directory, { mode: 0o700 })
      const to = [`--pg1-path=${directory}`, `--set=${backup.id}`, '--type=immediate', '--target-action=promote']
      return await run([...to, 'restore'])
    },
  }
}

function settings(home: string, cluster: BenchCluster, compression: Compression): string {
  const lines = [
    '[global]',
    `repo1-path=${home}/repo`,
    'repo1-cipher-type=aes-256-cbc',
    'repo1-cipher-pass=only-for-this-bench-only-for-this-bench',
    'repo1-retention-full=9',
    'repo1-bundle=y',
    ...COMPRESSION_SETTINGS[compression],
    `process-max=${availableParallelism()}`,
    'start-fast=y',
    `spool-path=${home}/spool`,
    `lock-path=${home}/lock`,
    `log-path=${home}/log`,
    'log-level-console=warn',
    'log-level-file=off',
    'archive-timeout=60',
    `[${STANZA}]`,
    `pg1-path=${cluster.directory}`,
    `pg1-port=${cluster.port}`,
    `pg1-socket-path=${cluster.socketDirectory}`,
    'pg1-user=postgres',
  ]
  return `${lines.join('\n')}\n`
}
