import type { MeasuredCommand } from './measured-command.ts'

/** A backup that was made, and what it took. */
export interface MeasuredBackup extends MeasuredCommand {
  /** By which the tool knows it. */
  readonly id: string
  /** Bytes in the repository that belong to it; WAL not. */
  readonly storedBytes: number
}

/** A backup tool beside others: the same work, each with its real command. Every measure is of a whole command. */
export interface Tool {
  readonly name: string
  /** An empty repository in place of what was there; not measured. */
  reset(): Promise<void>
  backup(type: 'full' | 'incremental'): Promise<MeasuredBackup>
  /** Restores the newest backup, which is this one, into an empty directory. */
  restore(backup: MeasuredBackup, directory: string): Promise<MeasuredCommand>
}
