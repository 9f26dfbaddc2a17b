import { AUTHORITY_VERBS, URL_OPTION } from './authority-verbs.ts'
import type { VerbDefinition } from './verb.ts'

const COMPONENT = ['[component]', 'name of a component; may be left out where there is only one'] as const

/** Which moment: of `restore` and `dump`. */
const TARGET = [
  ['--latest', 'to the newest moment that can be reached (the default)'],
  ['--target-time <time>', 'to the last transaction at or before this time, like 2026-11-21T03:00:00Z'],
  ['--target-lsn <lsn>', 'to this position in the WAL, like 16/B374D848'],
  ['--target-xid <id>', 'to the end of this transaction'],
  ['--target-name <name>', 'to the restore point of this name (pg_create_restore_point)'],
  ['--backup <id>', 'to the end of this backup; with another target, beginning with it'],
  ['--target-timeline <number>', 'along this timeline (default: the one that the cluster went last)'],
  ['--exclusive', 'stop before the time, LSN or transaction, not behind it'],
] as const

/** Of verbs that take a second person once there are people. */
const CLEARANCE = [
  ['--ask <why>', 'ask for a second person’s decision on exactly this, and do nothing yet'],
  ['--approval <id>', 'a request that was approved: for exactly this, once'],
  ['--emergency <id>', 'a declared emergency: to a new place alone'],
  ['--break-glass', 'with the sealed code, which is asked for: to a new place alone; everybody is told'],
] as const

/** Of verbs that ask a running control plane. */
const CONTROL_PLANE = [
  URL_OPTION,
  [
    '--token-file <file>',
    'a token of it (default: RESUS_TOKEN_FILE; who is logged on; /var/lib/resus/server/administrator-token)',
  ],
] as const

/** Every verb: what `resus --help` shows, and where its code is. */
export const VERBS: readonly VerbDefinition[] = [
  {
    name: 'demo',
    summary: 'show it: a hospital of four facilities is protected, destroyed and brought back, in under a minute',
    options: [
      ['--once', 'end after the recovery; exit status 0 only if everything held'],
      ['--keep', 'let the next demo keep what this one leaves'],
      ['--directory <path>', 'where everything lives (default: resus-demo-<uid> in the temporary directory)'],
      ['--patients <number>', 'how many patients the hospital begins with (default: 2000)'],
      ['--seed <number>', 'the moment of the disaster, and the data; printed by each run'],
    ],
    load: () => import('./demo.ts'),
  },
  {
    name: 'init',
    summary: 'set everything up: configuration, role and slot on the server, key, repository, first backup, and its proof',
    options: [
      [
        '--comprehensive',
        'all of it (the default without a configuration; with one, the default is to make its repository only)',
      ],
      ['--backup-only', 'set up and take the first backup; no proof'],
      ['--dr-only', 'with what is there: prove the newest backup, write the recovery sheet and server.yaml; take no backup'],
      ['--validate-only', 'change nothing: check configuration, secrets, storage, server; exit status 1 when one check fails'],
      ['--yes', 'ask nothing, take what is proposed, run the SQL'],
      ['--sql-only', 'print the SQL that the server lacks, and do nothing'],
      ['--cluster <directory>', 'data directory of the running server that is to be protected'],
      ['--system <name>', 'what the hospital calls the system'],
      ['--component <name>', 'what the configuration calls the cluster (default: db)'],
      ['--tier <tier>', 'critical, high, medium or low (proposed: critical)'],
      ['--storage <directory>', 'where the repository goes: on another disk than the database'],
      ['--same-device', 'let the repository lie on the disk of the database'],
      ['--state <directory>', 'for caches and the spool (default: /var/lib/resus/state, or beside a configuration outside /etc)'],
      ['--synchronous', 'commits are to wait for Resus'],
      ['--no-synchronous', 'they are not (proposed)'],
      ['--passphrase-file <path>', 'the passphrase, made when it is missing (default: beside the configuration)'],
      ['--connection-file <path>', 'how Resus connects, made when it is missing (default: beside the configuration)'],
      [
        '--superuser-connection <reference>',
        'how a superuser connects, once: file:/path, env:NAME, or text without a password (default: the socket)',
      ],
      ['--new-password', 'give the role a new password when it is there and its password is not known'],
      ['--sheet-with-passphrase', 'write the passphrase on the recovery sheet (the file; never the terminal)'],
    ],
    load: () => import('./init.ts'),
  },
  {
    name: 'check',
    summary: 'prove that everything a backup needs is in place: server, rights, storage, key',
    args: [COMPONENT],
    load: () => import('./check.ts'),
  },
  {
    name: 'backup',
    summary: 'back up a component',
    args: [COMPONENT],
    options: [['--type <type>', 'full, incremental or differential (default: incremental once there is a full)']],
    load: () => import('./backup.ts'),
  },
  {
    name: 'backups',
    summary: 'list the backups of a component, newest first',
    args: [COMPONENT],
    load: () => import('./backups.ts'),
  },
  {
    name: 'windows',
    summary: 'show what a component can be restored to without a gap, and what is missing',
    args: [COMPONENT],
    options: [['--around <time>', 'what lies next to this time, and how to restore to just before it']],
    load: () => import('./windows.ts'),
  },
  {
    name: 'stream',
    summary: 'receive WAL from the server and keep it, until it is stopped',
    args: [COMPONENT],
    load: () => import('./stream.ts'),
  },
  {
    name: 'restore',
    summary: 'bring a component back into a directory',
    args: [COMPONENT],
    options: [
      ['--to <directory>', 'where to; empty or missing, but for --delta'],
      ...TARGET,
      ['--action <action>', 'promote, pause or shutdown, when the target is reached (default: promote)'],
      ['--tablespace-map <old=new>', 'put a tablespace elsewhere: its path or oid, and where to; once for each', 'repeatable'],
      ['--delta', 'into a stopped cluster that is there: keep what is right, write the rest, remove what does not belong'],
      ['--request <id>', 'a name for this restore: asked for again when it is whole, it is reported, and not refused'],
      ['--safety-copy <directory>', 'with --delta: where what is there is copied to first (default: beside it)'],
      ['--without-safety-copy', 'with --delta: what is there may be lost; copy nothing first'],
      ['--without-spool', "go on when acknowledged WAL of this host's spool cannot be published"],
      [
        '--without-local-wal',
        'with --delta: do not bring WAL that only the pg_wal there has into the repository, and restore without it',
      ],
      ['--preview', 'say what would be done, and touch nothing'],
      ...CLEARANCE,
    ],
    load: () => import('./restore.ts'),
  },
  {
    name: 'dump',
    summary: 'a logical dump (pg_dump) of any restore point, from a restored copy: the living server is not touched',
    args: [COMPONENT],
    options: [
      ['--to <file>', 'where to; it must not exist'],
      ['--database <name>', 'of this database; may be left out where there is only one'],
      ['--table <pattern>', "only tables that match, as pg_dump's --table; may be repeated", 'repeatable'],
      ['--schema <pattern>', "only schemas that match, as pg_dump's --schema; may be repeated", 'repeatable'],
      ['--globals', 'roles and tablespaces instead of a database (pg_dumpall --globals-only)'],
      ['--format <format>', 'custom, for pg_restore; or plain, SQL compressed by gzip (default: custom)'],
      ['--compress <level>', '0 to 9 (default: 6)'],
      ...TARGET,
      ['--scratch <directory>', 'where to restore to meanwhile (default: "scratch" in the state directory)'],
      ...CLEARANCE,
    ],
    load: () => import('./dump.ts'),
  },
  {
    name: 'wal-get',
    summary: 'for restore_command: exit status 0 delivered, 90 proven absent, anything else is doubt',
    args: [
      ['<name>', 'the file that PostgreSQL asks for (%f)'],
      ['<destination>', 'where it wants it (%p)'],
    ],
    options: [
      ['--plan <path>', 'the plan that the restore froze'],
      ['--first', 'before recovery begins: also put there what it will ask for next'],
    ],
    load: () => import('./wal-get.ts'),
  },
  {
    name: 'wal-ahead',
    summary: 'started by restore_command: fetches WAL ahead of a recovery, for as long as that goes on',
    args: [['<name>', 'the segment behind which to begin (%f)']],
    options: [
      ['--plan <path>', 'the plan that the restore froze'],
      ['--while <pid>', 'the process that recovers: when it ends, so does the fetching'],
      ['--itself', 'fetch that segment too: it is not there'],
    ],
    load: () => import('./wal-ahead.ts'),
  },
  {
    name: 'wal-push',
    summary: 'for archive_command: exit status 0 only when the WAL is durable in the repository',
    args: [['<path>', 'the file that PostgreSQL wants to have archived (%p)']],
    options: [['--component <name>', 'the component that it is of; may be left out where there is only one']],
    load: () => import('./wal-push.ts'),
  },
  {
    name: 'verify',
    summary: 'read a backup back (by default the newest), or everything; or prove it by a restore',
    args: [['[backup]', 'id of a backup; with --by-restore also "latest": a backup and all WAL behind it']],
    options: [
      ['--all', 'all blobs and all WAL of the repository'],
      ['--by-restore', 'restore it into a scratch directory, start it, check all that can be checked, and take it away again'],
      ['--scratch <directory>', 'where to restore to (default: "scratch" in the state directory)'],
      ['--component <name>', 'the component that the backup is of; may be left out where there is only one'],
    ],
    load: () => import('./verify.ts'),
  },
  {
    name: 'expire',
    summary: 'delete backups and WAL that nothing keeps any more, in two runs a day apart: the first marks them',
    args: [['[component]', 'name of a component; all of the configuration when it is left out']],
    options: [['--dry-run', 'say what would go and why the others stay; touch nothing'], ...CLEARANCE.slice(0, 2)],
    load: () => import('./expire.ts'),
  },
  {
    name: 'status',
    summary: 'what is kept, how old it is, whether WAL is being received, and what is proven',
    args: [COMPONENT],
    options: [['--recovery <directory>', 'instead, how far the recovery of a restored directory is']],
    load: () => import('./status.ts'),
  },
  {
    name: 'serve',
    summary: 'protect everything that is configured, day and night: receivers, schedules, health, notices and the HTTP API',
    options: [['--server <file>', 'settings of the server (default: server.yaml beside the configuration)']],
    load: () => import('./serve.ts'),
  },
  {
    name: 'tasks',
    summary: 'what a running "resus serve" does and has done; one task with its log',
    args: [['[task]', 'id of a task; without it the newest are listed']],
    options: [
      ['--follow', 'with a task: print its log as it comes, until it ends'],
      ['--component <name>', 'only of this component'],
      ['--kind <kind>', 'only backup, verify, prove, expire, check or restore'],
      ['--state <state>', 'only waiting, running, done, failed or cancelled'],
      ['--limit <number>', 'how many (default: 50)'],
      ...CONTROL_PLANE,
    ],
    load: () => import('./tasks.ts'),
  },
  {
    name: 'schedules',
    summary: 'what a running "resus serve" does by itself, and when next',
    options: CONTROL_PLANE,
    load: () => import('./schedules.ts'),
  },
  {
    name: 'drill',
    summary: 'rehearse a recovery: restore into a scratch place, judge its content, measure, take it away, sign the record',
    args: [COMPONENT],
    options: [
      ['--system', 'every component, one after the other'],
      ['--target <turn>', 'latest, random (a moment of the window), oldest or baseline (default: the next in turn)'],
      ...TARGET.filter(([flags]) => !flags.startsWith('--target-timeline')),
      ['--scratch <directory>', 'where to restore to (default: "scratch" in the state directory)'],
      ['--started-by <who>', 'who is named in the record (default: the account)'],
    ],
    load: () => import('./drill.ts'),
  },
  {
    name: 'baseline',
    summary: 'count and hash the tables of a running server at one moment: what drills hold a copy against',
    args: [COMPONENT],
    load: () => import('./baseline.ts'),
  },
  {
    name: 'evidence',
    summary: 'the signed records of drills and recoveries: list, show, verify, bundle; needs the repository alone',
    args: [
      ['<what>', 'list, show, details, verify, bundle, controls, key, certify, deviate or act'],
      ['[which]', 'show, details, certify, deviate, act: the number of a record; verify: a bundle’s directory'],
    ],
    options: [
      ['--all', 'list: all of them (default: the newest 50)'],
      ['--html <file>', 'show: write it as a page that prints well'],
      ['--pdf <file>', 'show: write it as PDF, where this machine has Chromium'],
      ['--fingerprint <hex>', 'verify: of the signer, from the recovery sheet or a digest; without it nothing is proven'],
      ['--head <file>', 'verify: a signed count that was kept elsewhere: finds what was cut since'],
      ['--to <directory>', 'bundle: a new directory'],
      ['--from <time>', 'bundle, controls: records made from this day or time on'],
      ['--until <time>', 'bundle, controls: records made before it'],
      ['--rotate', 'key: make another one, which the one in force names'],
      ['--by <name>', 'certify, deviate, act: whose word it is'],
      ['--decision <decision>', 'certify: accepted, deviations (accepted with deviations) or rejected'],
      ['--severity <severity>', 'deviate: minor (the default) or major'],
      ['--owner <name>', 'act: who does it'],
      ['--due <day>', 'act: until when, like 2026-12-31'],
      ['--action <id>', 'act: change this one, instead of opening another'],
      ['--state <state>', 'act: open, done or dropped'],
      ['--text <text>', 'certify, deviate, act: what is said'],
    ],
    load: () => import('./evidence.ts'),
  },
  {
    name: 'audit',
    summary:
      'what was done, by whom: check that the trail is whole, export it, show the key of its heads (needs the repositories alone); say that one has looked at its alarms',
    args: [['<what>', 'verify, export, key or acknowledge']],
    options: [
      ['--head <file>', 'verify: heads that were told outside (the digest as it was saved): finds what was cut in every copy'],
      ['--key <file>', 'verify: the public key of the heads, kept apart (default: that of the repository)'],
      ['--state <directory>', 'verify: of the server, whose own store is checked too (default: /var/lib/resus/server)'],
      ['--since <time>', 'export: from this time on, like 2026-11-21T03:00:00Z'],
      ['--until <time>', 'export: before this time'],
      [
        '--text <text>',
        'acknowledge: what you have found of what alarms say of the trail, of accounts and of sessions; closes them, on record',
      ],
      URL_OPTION,
    ],
    load: () => import('./audit.ts'),
  },
  ...AUTHORITY_VERBS,
  {
    name: 'config',
    summary: 'print the configuration as it is understood, without secrets',
    options: [
      ['--schema', 'print the JSON Schema of resus.yaml instead'],
      ['--heartbeat <role>', 'print the SQL that makes the table of the heartbeat for this role instead'],
    ],
    load: () => import('./config.ts'),
  },
]
