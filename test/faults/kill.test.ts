import test from 'node:test'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { killBackups, runTwoBackups } from './kill-backup.ts'
import { killRestores } from './kill-restore.ts'
import { killReceivers, killServers } from './kill-server.ts'
import { Random, testSeed } from './random.ts'

// SIGKILL of everything, at seeded moments. `npm run faults` runs one kind with one seed at a time, named in RESUS_FAULT: "backup:4711".

const KINDS = [
  {
    kind: 'backup',
    seeds: 2,
    title: 'a killed backup leaves whole objects, and the next run stores what is missing',
    run: killBackups,
  },
  { kind: 'restore', seeds: 3, title: 'a killed restore does not start, and the next run completes it', run: killRestores },
  { kind: 'server', seeds: 2, title: 'a lost server loses no acknowledged write', run: killServers },
  { kind: 'receiver', seeds: 2, title: 'a killed receiver loses no acknowledged write', run: killReceivers },
] as const

const skip = await skipUnlessInstalled(18)
const [onlyKind, onlySeed] = process.env.RESUS_FAULT?.split(':') ?? []

for (const { kind, seeds, title, run } of KINDS) {
  if (onlyKind !== undefined && onlyKind !== kind) continue
  test(title, { skip }, async (t) => {
    if (onlySeed !== undefined) return await run(t, [Number(onlySeed)])
    const random = new Random(testSeed(t))
    return await run(
      t,
      Array.from({ length: seeds }, () => random.below(1_000_000)),
    )
  })
}

if (onlyKind === undefined) {
  test('of two backups of one component at once the second is refused', { skip }, (t) => runTwoBackups(t))
}
