import type { MeasuredCommand } from './measured-command.ts'

/** A backup that was made, and what it took. */
export interface MeasuredBackup extends MeasuredCommand {
  /** By which the tool knows it. */
  readonly id: string
  /** Bytes in the repository that belong to it; WAL not. */
  readonly storedBytes: number
}

/** A tool that makes full backups. Every measure is of a whole command. */
export interface FullBackupTool {
  readonly name: string
  /** An empty repository in place of what was there; not measured. */
  reset(): Promise<void>
  backup(type: 'full'): Promise<MeasuredBackup>
}

/** A backup tool beside others: the same work, each with its real command. */
export interface Tool extends FullBackupTool {
  backup(type: 'full' | 'incremental'): Promise<MeasuredBackup>
  /** Restores the newest backup, which is this one, into an empty directory. */
  restore(backup: MeasuredBackup, directory: string): Promise<MeasuredCommand>
}
