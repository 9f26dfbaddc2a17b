import { Store } from '../../src/catalog/store.ts'
import { systemClock } from '../../src/clock.ts'
import { alarmOf } from '../../src/incident/alarm-kinds.ts'
import { Notices } from '../../src/incident/notices.ts'
import { testChannels, testSecret } from './channels.ts'

// Notices in a process of their own, so that a test can kill it. It prints a line when the alarm is kept.
//   notices-process.ts <connection string of the store> <URL of the receiver> <milliseconds of grouping>

const [connectionString = '', url = '', groupMs = ''] = process.argv.slice(2)
const notices = Notices.start({
  store: await Store.open(connectionString),
  node: 'doomed',
  clock: systemClock,
  channels: testChannels({ hook: { kind: 'webhook', url, secret: testSecret('hush'), allowPrivate: true } }),
  groupMs: Number(groupMs),
  pollMs: 20,
})
process.stdout.write(`${await notices.raise(alarmOf('BACKUP_FAILED', { system: 'Osun HIS', text: 'the storage was full' }))}\n`)
