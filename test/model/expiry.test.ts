import assert from 'node:assert/strict'
import test from 'node:test'
import { testSeed } from '../faults/random.ts'
import { exploreExpiry, Violation, type Omission } from './expiry-model.ts'

const INTERLEAVINGS = 2000
/** Each step that is left out must be missed within so many. */
const INTERLEAVINGS_MAX = 20_000

test('no interleaving of writers, deleters and compactors, with pauses, deaths and wrong clocks, takes anything from a published backup', (t) => {
  const first = testSeed(t)
  let [steps, published, deletedPacks] = [0, 0, 0]
  for (let seed = first; seed < first + INTERLEAVINGS; seed++) {
    try {
      const run = exploreExpiry(seed)
      steps += run.steps
      published += run.published
      deletedPacks += run.deletedPacks
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error })
    }
  }
  t.diagnostic(`${INTERLEAVINGS} interleavings, ${steps} steps, ${published} backups published, ${deletedPacks} packs deleted`)
  // A model in which nothing happens would prove nothing.
  assert(published > INTERLEAVINGS && deletedPacks > INTERLEAVINGS)
})

const OMISSIONS: readonly Omission[] = [
  'read the marks again',
  'list the packs again',
  'close the names of dead runs',
  'walk the backups again after the grace',
  'spare the packs of runs at work',
  'a marked pack stays marked',
  'keep every place of a blob',
  'keep what is proven',
]

for (const omission of OMISSIONS) {
  test(`the model finds what happens without this: ${omission}`, (t) => {
    const first = testSeed(t)
    for (let seed = first; seed < first + INTERLEAVINGS_MAX; seed++) {
      try {
        exploreExpiry(seed, omission)
      } catch (error) {
        assert(error instanceof Violation)
        t.diagnostic(`found at seed ${seed}, after ${seed - first} others: ${error.message}`)
        return
      }
    }
    assert.fail(`nothing was found in ${INTERLEAVINGS_MAX} interleavings`)
  })
}
