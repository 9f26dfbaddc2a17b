import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import pg from 'pg'
import { skipUnlessInstalled, testCluster } from '../../test/services/postgres.ts'
import { PAGE_BYTES, PAGE_WORDS, pageChecksum, pageIsNew, verifyPage } from './page-checksum.ts'

const SEEDS = [
  0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c, 0xf8d4474f, 0xe39eb970,
  0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb, 0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de,
  0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4, 0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e, 0x9fbf8c76, 0x15ca20be,
  0xf2ca9fd3, 0x959bd756,
]

/** Word by word, straight from checksum_impl.h. */
function slowChecksum(words: Uint32Array, offset: number, block: number): number {
  const sums = Uint32Array.from(SEEDS)
  const mix = (lane: number, word: number) => {
    const mixed = sums[lane]! ^ word
    sums[lane] = Math.imul(mixed, 16777619) ^ (mixed >>> 17)
  }
  for (let i = 0; i < PAGE_WORDS; i++) mix(i % 32, i === 2 ? words[offset + i]! & 0xffff0000 : words[offset + i]!)
  for (let i = 0; i < 64; i++) mix(i % 32, 0)
  return ((sums.reduce((all, sum) => all ^ sum, block) >>> 0) % 65535) + 1
}

function randomPages(count: number): Uint32Array {
  return Uint32Array.from({ length: PAGE_WORDS * count }, () => randomInt(2 ** 32))
}

test('the vector code gives what the definition gives, wherever the page lies, and leaves the page alone', () => {
  const words = randomPages(8)
  const before = words.slice()
  for (let round = 0; round < 100; round++) {
    const offset = randomInt(words.length - PAGE_WORDS)
    const block = randomInt(2 ** 32)
    assert.equal(pageChecksum(words, offset, block), slowChecksum(words, offset, block), `word ${offset}, block ${block}`)
  }
  assert.deepEqual(words, before)
})

test('a page of zeros is new, and one with no end of free space but something in it is corrupt', () => {
  const words = new Uint32Array(PAGE_WORDS)
  assert.equal(pageIsNew(words, 0), true)
  assert.equal(verifyPage(words, 0, 5), 'new')
  words[PAGE_WORDS - 1] = 1
  assert.equal(pageIsNew(words, 0), true)
  assert.equal(verifyPage(words, 0, 5), 'corrupt')
})

test('a page whose checksum is right but whose head makes no sense is corrupt', () => {
  const words = new Uint32Array(PAGE_WORDS)
  words[3] = (8192 << 16) | 24
  words[4] = (0x2004 << 16) | 8192
  const seal = () => {
    words[2] = (words[2]! & 0xffff0000) | pageChecksum(words, 0, 9)
  }
  seal()
  assert.equal(verifyPage(words, 0, 9), 'valid')
  words[3] = (8192 << 16) | 8193
  seal()
  assert.equal(verifyPage(words, 0, 9), 'corrupt')
})

/** Pages of every relation file of the cluster, with the block number that each stands for. */
async function relationPages(directory: string): Promise<readonly { name: string; words: Uint32Array; firstBlock: number }[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile() && /^\d+(_(fsm|vm|init))?(\.\d+)?$/.test(entry.name))
  const inRelations = files.filter((entry) => /\/(base\/\d+|global)$/.test(entry.parentPath))
  return Promise.all(
    inRelations.map(async (entry) => {
      const bytes = await readFile(join(entry.parentPath, entry.name))
      const segment = Number(/\.(\d+)$/.exec(entry.name)?.[1] ?? 0)
      const name = join(basename(entry.parentPath), entry.name)
      return { name, words: new Uint32Array(new Uint8Array(bytes).buffer), firstBlock: segment * 131072 }
    }),
  )
}

for (const major of [15, 18]) {
  test(
    `PostgreSQL ${major}: every page is valid, a flipped bit or a wrong place is found`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      const cluster = await testCluster(t, { major, dataChecksums: true })
      const client = new pg.Client({ connectionString: cluster.connectionString })
      await client.connect()
      await client.query(`CREATE TABLE patient (id bigint PRIMARY KEY, name text, note text);
      INSERT INTO patient SELECT i, md5(i::text), repeat(md5(i::text), 8) FROM generate_series(1, 20000) i`)
      await client.query('VACUUM patient')
      await client.end()
      await cluster.stop()

      let pages = 0
      let found = 0
      for (const { name, words, firstBlock } of await relationPages(cluster.directory)) {
        assert.equal((words.length * 4) % PAGE_BYTES, 0, name)
        for (let page = 0; page < words.length / PAGE_WORDS; page++) {
          const [offset, block] = [page * PAGE_WORDS, firstBlock + page]
          const verdict = verifyPage(words, offset, block)
          assert.notEqual(verdict, 'corrupt', `${name} block ${block}`)
          if (verdict === 'new') continue
          pages++
          assert.equal(verifyPage(words, offset, block + 1), 'corrupt', `${name} block ${block} taken for the next`)
          const [word, bit] = [offset + randomInt(PAGE_WORDS), randomInt(32)]
          words[word]! ^= 1 << bit
          // One damaged page in 65535 keeps its checksum: then the definition has to agree.
          if (verifyPage(words, offset, block) === 'corrupt') found++
          else assert.equal(slowChecksum(words, offset, block), words[offset + 2]! & 0xffff, `${name} block ${block}`)
        }
      }
      assert(pages > 1000 && found > pages - 5, `${found} of ${pages} pages`)
    },
  )
}
