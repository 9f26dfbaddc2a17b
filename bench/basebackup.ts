import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { treeBytes } from './cluster-files.ts'
import type { BenchCluster } from './cluster.ts'
import { measureCommand } from './measured-command.ts'
import type { FullBackupTool } from './tool.ts'

/** The pg_basebackup of the cluster's own version; undefined where it is not installed. */
export function findBaseBackup(cluster: BenchCluster): string | undefined {
  const program = join(cluster.installation.binDirectory, 'pg_basebackup')
  return existsSync(program) ? program : undefined
}

/** PostgreSQL's own full backup as a tar, compressed by zstd at level 1 on all cores. It encrypts nothing and keeps no history. */
export function baseBackupTool(program: string, { home, cluster }: { home: string; cluster: BenchCluster }): FullBackupTool {
  const directory = join(home, 'backup')
  return {
    name: 'pg_basebackup zst 1',
    reset: async () => {
      await rm(home, { recursive: true, force: true })
      await mkdir(home)
    },
    backup: async () => {
      const connection = [`--host=${cluster.socketDirectory}`, `--port=${cluster.port}`, '--username=postgres']
      const compress = `--compress=client-zstd:level=1,workers=${availableParallelism()}`
      const how = ['--format=tar', compress, '--checkpoint=fast', '--wal-method=none', `--pgdata=${directory}`]
      const measured = await measureCommand(program, [...connection, ...how])
      return { ...measured, id: 'backup', storedBytes: await treeBytes(directory) }
    },
  }
}
