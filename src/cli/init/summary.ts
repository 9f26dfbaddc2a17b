import type { Configuration } from '../../config/configuration.ts'
import { formatSecretReference } from '../../config/secret-reference.ts'
import type { Repository } from '../../repository/repository.ts'
import { formatFields, formatTime } from '../output.ts'
import type { Answer } from '../verb.ts'
import type { Proven } from './protection.ts'
import type { StepTaken } from './set-up.ts'
import type { WrittenSheet } from './sheet-files.ts'

/** What was set up, what is proven, and what people have to do themselves. */
export function summary(done: {
  mode: string
  configuration: Configuration
  repository: Repository
  sheet: WrittenSheet
  proofs: readonly Proven[]
  steps: readonly StepTaken[]
  good: boolean
}): Answer {
  const { mode, configuration, repository, sheet, proofs, steps, good } = done
  const { path, system } = configuration
  const proven = proofs.map(({ component, backup, verdict, expires }): [string, string] => [
    `"${component}"`,
    verdict === 'verified' ? `${backup}, proven by a restore until ${formatTime(expires)}` : `${backup}: ${verdict}`,
  ])
  const fields = [
    ['system', system],
    ['configuration', path],
    ['repository', `${repository.id} in ${repository.storage.description}`],
    ['passphrase', formatSecretReference(configuration.repository.key.passphrase)],
    ['recovery sheet', sheet.path],
    ...(proven.length > 0
      ? proven
      : [['proven by a restore', 'not proven: --dr-only, or "resus verify --by-restore latest"'] as const]),
  ] as const
  const failed = proofs.flatMap(({ checks }) => checks.filter(({ verdict }) => verdict === 'failed'))
  const text = [
    sheet.text,
    formatFields(fields),
    ...failed.map(({ name, found }) => `  failed: ${name}: ${found}`),
    '',
    ...nextSteps(configuration, sheet),
  ]
  return {
    json: {
      mode,
      system,
      configuration: path,
      repository: repository.id,
      storage: repository.storage.description,
      recoverySheet: sheet.path,
      steps,
      proofs,
    },
    text: text.join('\n'),
    exitStatus: good ? 0 : 1,
  }
}

function nextSteps({ path, components }: Configuration, sheet: WrittenSheet): string[] {
  const synchronous = components.filter(({ stream }) => stream.synchronous)
  return [
    'WHAT IS LEFT FOR YOU',
    `  1. Print "${sheet.path}" with the passphrase, keep both off this machine, and delete the sheet here.`,
    `  2. Run it day and night: RESUS_CONFIG=${path} ./resus serve (deploy/systemd/ has units). Until a receiver runs, what came`,
    '     since the last backup is on the server alone, which keeps WAL for the slot up to max_slot_wal_keep_size.',
    ...synchronous.map(
      ({ stream }) =>
        `  3. When it runs: alter system set synchronous_standby_names = 'FIRST 1 (${stream.slot})'; select pg_reload_conf();`,
    ),
  ]
}
