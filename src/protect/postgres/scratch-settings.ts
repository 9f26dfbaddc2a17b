import type { BackupManifest } from '../../repository/backups.ts'

// Settings under which a restored cluster is started to be looked at.

/**
 * Settings on the command line, which win over `postgresql.conf` and `postgresql.auto.conf`. The server's main configuration file is an
 * empty one of ours, so that only ALTER SYSTEM's file and these count. They keep it from acting on anything outside (commands, archive, other servers, network),
 * from running the cluster's own libraries, and from passing over damage.
 */
const HARMLESS: Readonly<Record<string, string>> = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  unix_socket_group: '',
  ssl: 'off',
  bonjour: 'off',
  cluster_name: 'resus verify',
  external_pid_file: '',
  // What the cluster would load or run.
  shared_preload_libraries: '',
  session_preload_libraries: '',
  local_preload_libraries: '',
  dynamic_library_path: '$libdir',
  jit: 'off',
  archive_cleanup_command: '',
  recovery_end_command: '',
  archive_mode: 'off',
  archive_command: '',
  archive_library: '',
  ssl_passphrase_command: '',
  // Whom it would call, or wait for.
  primary_conninfo: '',
  primary_slot_name: '',
  synchronous_standby_names: '',
  max_logical_replication_workers: '0',
  recovery_min_apply_delay: '0',
  autovacuum: 'off',
  // What would hide damage.
  ignore_checksum_failure: 'off',
  zero_damaged_pages: 'off',
  ignore_invalid_pages: 'off',
  ignore_system_indexes: 'off',
  // Its log is ours, and goes with it.
  logging_collector: 'off',
  log_destination: 'stderr',
  log_statement: 'none',
  log_min_duration_statement: '-1',
  log_min_error_statement: 'panic',
  log_parameter_max_length_on_error: '0',
  log_line_prefix: '%m [%p] ',
  lc_messages: 'C',
  // It is thrown away: it need not survive a power cut, nor take the host's memory.
  fsync: 'off',
  full_page_writes: 'off',
  restart_after_crash: 'off',
  hot_standby: 'off',
  shared_buffers: '128MB',
  huge_pages: 'off',
  dynamic_shared_memory_type: 'mmap',
  max_parallel_workers: '0',
}

/** The same for each session: there they win over what ALTER ROLE and ALTER DATABASE have set. */
export const SESSION: Readonly<Record<string, string>> = {
  local_preload_libraries: '',
  search_path: 'pg_catalog',
  statement_timeout: '0',
  lock_timeout: '0',
  default_transaction_read_only: 'off',
  default_tablespace: '',
  row_security: 'off',
}
/** Only a superuser may set these. */
export const SUPERUSER_SESSION: Readonly<Record<string, string>> = {
  session_preload_libraries: '',
  session_replication_role: 'replica',
  ignore_checksum_failure: 'off',
  zero_damaged_pages: 'off',
  dynamic_library_path: '$libdir',
  // What is asked may name patients, and ALTER ROLE would win over the command line.
  log_statement: 'none',
  log_duration: 'off',
  log_min_duration_statement: '-1',
  log_min_duration_sample: '-1',
  log_min_error_statement: 'panic',
  log_parameter_max_length_on_error: '0',
}

export const ALL_SESSION = { ...SESSION, ...SUPERUSER_SESSION }

/** What a major version knows besides: from 17 on event triggers can be turned off as a whole, from 18 on extensions may lie elsewhere. */
export function settingsOf(major: number): Readonly<Record<string, string>> {
  return {
    ...HARMLESS,
    ...(major >= 17 ? { event_triggers: 'off' } : {}),
    ...(major >= 18 ? { extension_control_path: '$system' } : {}),
  }
}

/** The words that give a session its settings; those that only a superuser may set where they are among them. */
export function sessionOptions(major: number, settings: Readonly<Record<string, string>>): string {
  const more = {
    ...(major >= 17 ? { transaction_timeout: '0' } : {}),
    // ALTER DATABASE would turn it on again, against the command line.
    ...(major >= 17 && 'session_replication_role' in settings ? { event_triggers: 'off' } : {}),
  }
  return Object.entries({ ...settings, ...more })
    .map(([name, value]) => `-c ${name}=${value}`)
    .join(' ')
}

/** Recovery refuses to run with fewer prepared transactions than are open; the sizes must each hold two segments. */
export function recoverySettings({ settings, segmentSize }: BackupManifest['server']): Record<string, string> {
  const segmentMegabytes = segmentSize / 1024 ** 2
  const kept = ['max_prepared_transactions', 'max_locks_per_transaction'].flatMap((name) => {
    const value = settings[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  return {
    ...Object.fromEntries(kept),
    min_wal_size: `${Math.max(80, 2 * segmentMegabytes)}MB`,
    max_wal_size: `${Math.max(512, 4 * segmentMegabytes)}MB`,
  }
}
