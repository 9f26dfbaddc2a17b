import assert from 'node:assert/strict'
import test, { after, type TestContext } from 'node:test'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import type { Grant, Principal } from '../authority/principal.ts'
import type { Action } from '../authority/roles.ts'
import { keepSummaries, type BackupSummary } from '../catalog/backups.ts'
import type { Configuration } from '../config/configuration.ts'
import { Failure } from '../errors.ts'
import { Catalogue, type ComponentPicture } from './catalogue.ts'
import { facilitiesAbout, View } from './view.ts'

after(stopTestStore)

const COMPONENTS = { 'ila-db': ['ila'], 'ede-db': ['ede'], 'both-db': ['ila', 'ede'], 'all-db': undefined } as const

function configuration(system: string): Configuration {
  const components = Object.entries(COMPONENTS).map(([name, facilities]) => ({ name, facilities }))
  return { system, facilities: { ila: {}, ede: {}, oba: {} }, components } as unknown as Configuration
}

/** As a node has it after a start, from what the store remembers of backups. */
async function catalogueOf(t: TestContext, systems: readonly string[]): Promise<Catalogue> {
  const store = await testStore(t)
  const summaries = systems.flatMap((system) =>
    Object.keys(COMPONENTS).flatMap((component) => [`of-${component}`, 'same'].map((id) => summary(system, component, id))),
  )
  await keepSummaries(store.sql, summaries)
  const catalogue = new Catalogue(store)
  await catalogue.take(systems.map(configuration))
  return catalogue
}

async function views(t: TestContext, ...systems: readonly string[]) {
  const catalogue = await catalogueOf(t, systems)
  const view = (grants: readonly Grant[], action: Action = 'status.read'): View => {
    const principal: Principal = { kind: 'person', id: '1', person: '1', name: 'ada', grants, factor: 'totp' }
    return new View(catalogue, principal, action)
  }
  return { catalogue, view }
}

function summary(system: string, component: string, id: string): BackupSummary {
  const at = '2026-11-22T12:00:00.000Z'
  const times = { startedAt: at, finishedAt: at, stopTime: at, timeline: 1, startLsn: '0/1', stopLsn: '0/2', serverVersion: '18' }
  const figures = { files: 1, bytes: 1, bytesRead: 1, bytesStored: 1, bytesReused: 0, corruptPages: 0 }
  return { system, component, id, type: 'full', sequence: 1, ...times, ...figures }
}

const of = (role: Grant['role'], ...facilities: string[]): Grant => ({
  role,
  facilities: facilities.length === 0 ? null : facilities,
})
const names = (pictures: readonly ComponentPicture[]) => pictures.map(({ component }) => component.name)
const code = (work: () => unknown): string => {
  try {
    work()
    return 'done'
  } catch (error) {
    if (error instanceof Failure) return error.code
    throw error
  }
}

test('a grant for some facilities sees what holds one of them, and what says nothing holds all', async (t) => {
  const { view } = await views(t, 'osun')
  assert.deepEqual(names(view([of('viewer')]).pictures()), ['ila-db', 'ede-db', 'both-db', 'all-db'])
  assert.deepEqual(names(view([of('viewer', 'ila')]).pictures()), ['ila-db', 'both-db', 'all-db'])
  assert.deepEqual(names(view([of('viewer', 'oba')]).pictures()), ['all-db'])
  assert.deepEqual(names(view([of('viewer', 'elsewhere')]).pictures()), [])
  assert.deepEqual(view([]).pictures(), [])
  assert.deepEqual(view([of('viewer', 'elsewhere')]).systems(), [])
})

test('what belongs to no component is for who sees everything', async (t) => {
  const { view } = await views(t, 'osun')
  assert.equal(view([of('viewer')]).sees('osun', null), true)
  assert.equal(view([of('viewer', 'ila', 'ede', 'oba')]).sees('osun', null), false)
  assert.equal(view([of('viewer', 'ila')]).sees('osun', 'gone-db'), false)
  assert.deepEqual([...view([of('viewer', 'oba')]).limits()!].length, 1)
  assert.equal(view([of('viewer')]).limits(), undefined)
})

test('what may not be seen is not there, and what may be seen alone is not worked on', async (t) => {
  const { view } = await views(t, 'osun')
  const own = view([of('operator', 'ila')], 'backup.start')
  assert.equal(own.component({ component: 'ila-db' }).component.name, 'ila-db')
  assert.equal(
    code(() => own.component({ component: 'both-db' })),
    'FORBIDDEN',
  )
  assert.equal(
    code(() => own.component({ component: 'ede-db' })),
    'COMPONENT_UNKNOWN',
  )
  assert.equal(
    code(() => own.component({})),
    'ARGUMENTS_INVALID',
  )
  assert.equal(
    code(() => own.backup('of-ede-db', {})),
    'BACKUP_UNKNOWN',
  )
  assert.equal(
    code(() => own.backup('of-both-db', {})),
    'FORBIDDEN',
  )
  assert.equal(own.backup('of-ila-db', {}).backup.id, 'of-ila-db')
  assert.equal(
    code(() => own.backup('same', {})),
    'ARGUMENTS_INVALID',
  )
  assert.equal(
    code(() => own.requireReached('osun', 'gone-db')),
    'FORBIDDEN',
    'configured no more: the whole installation’s',
  )
  assert.equal(
    code(() => view([of('operator')], 'backup.start').requireReached('osun', 'gone-db')),
    'done',
  )
  const hint = (work: () => unknown) => {
    try {
      work()
    } catch (error) {
      return (error as Failure).hint ?? ''
    }
    return ''
  }
  assert(!hint(() => own.component({ component: 'nothing' })).includes('ede-db'), 'no hint names what may not be seen')
})

test('a system is meant by itself where it is the only one that is seen', async (t) => {
  const { view } = await views(t, 'osun')
  const { view: several } = await views(t, 'osun', 'oyo')
  assert.equal(view([of('viewer')]).system(undefined), 'osun')
  assert.equal(
    code(() => several([of('viewer')]).system(undefined)),
    'ARGUMENTS_INVALID',
  )
  assert.equal(several([of('viewer')]).system('oyo'), 'oyo')
  assert.notEqual(
    code(() => view([of('viewer', 'elsewhere')]).system('osun')),
    'done',
  )
})

test('who sees the same has the same key, whatever their roles and in whatever order', async (t) => {
  const { view } = await views(t, 'osun')
  assert.equal(view([of('viewer')]).key, view([of('auditor'), of('operator', 'ila')]).key)
  assert.equal(view([of('viewer', 'ila', 'ede')]).key, view([of('operator', 'ede'), of('viewer', 'ila')]).key)
  assert.notEqual(view([of('viewer', 'ila')]).key, view([of('viewer', 'ede')]).key)
})

test('whose data something is about comes of the configuration; what is not configured is the whole installation’s', async (t) => {
  const { catalogue } = await views(t, 'osun')
  const about = (component: string | null, system: string | null = 'osun') => facilitiesAbout(catalogue, { system, component })
  assert.deepEqual(
    [about('both-db'), about('all-db'), about('gone-db'), about(null), about('ila-db', null), about('ila-db', 'oyo')],
    [['ila', 'ede'], ['ila', 'ede', 'oba'], [], [], [], []],
  )
})
