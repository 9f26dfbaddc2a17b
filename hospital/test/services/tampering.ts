import type { TestHospital } from './hospital-database.ts'

/** Runs statements as only somebody with a superuser's rights and ill will does, or a disk: no trigger, no foreign key, no append-only. */
export async function tamper({ admin }: TestHospital, statement: string): Promise<void> {
  try {
    await admin.query(`begin; set local session_replication_role = replica; ${statement}; commit`)
  } catch (error) {
    await admin.query('rollback')
    throw error
  }
}
