import {
  assemble,
  constant,
  get,
  I32,
  I32_ADD,
  I32_LESS_THAN_UNSIGNED,
  I32_XOR,
  i32,
  load,
  loopWhile,
  MULTIPLY,
  set,
  SHIFT_RIGHT,
  tee,
  V128,
  vector,
  XOR,
} from '../stream/wasm.ts'
// Also asserts that the processor is little-endian, as the words here have to be.
import './crc32c.ts'

/** Bytes of a page. A server built with another block size is not supported: `parseControlFile` tells. */
export const PAGE_BYTES = 8192
export const PAGE_WORDS = PAGE_BYTES / 4

/*
 * The head of a page (bufpage.h), little-endian:
 *   0 pd_lsn (8)   8 pd_checksum (2)   10 pd_flags (2)   12 pd_lower (2)   14 pd_upper (2)   16 pd_special (2)
 *   18 page size and layout version (2)   20 pd_prune_xid (4)
 */
const CHECKSUM_WORD = 2
const BOUNDS_WORD = 3
const SPECIAL_WORD = 4
const VALID_FLAGS = 0x0007

const PRIME = 16777619
const LANE_SEEDS = [
  0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c, 0xf8d4474f, 0xe39eb970,
  0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb, 0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de,
  0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4, 0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e, 0x9fbf8c76, 0x15ca20be,
  0xf2ca9fd3, 0x959bd756,
] as const

/**
 * The checksum that PostgreSQL keeps in a page's head (checksum_impl.h, 8 KiB pages): 32 lanes of FNV-1a, folded, and the block
 * number mixed in, so that a page in the wrong place is found too. `blockNumber` counts from the relation's first segment. The
 * page's own checksum field is read as zero; the words are not changed.
 */
export function pageChecksum(words: Uint32Array, wordOffset: number, blockNumber: number): number {
  memory.set(words.subarray(wordOffset, wordOffset + PAGE_WORDS))
  memory[CHECKSUM_WORD]! &= 0xffff0000
  return (((hashPage() ^ blockNumber) >>> 0) % 65535) + 1
}

/** PostgreSQL's PageIsNew: a page that was added to its file and not yet filled has no end of free space. */
export function pageIsNew(words: Uint32Array, wordOffset: number): boolean {
  return words[wordOffset + BOUNDS_WORD]! >>> 16 === 0
}

/**
 * Judges a page of a cluster with checksums as PostgreSQL does when it reads one (PageIsVerified, bufpage.c): valid when checksum
 * and head are right, new when all of it is zero, else corrupt. A page that is being written while it is read looks corrupt too.
 */
export function verifyPage(words: Uint32Array, wordOffset: number, blockNumber: number): 'valid' | 'new' | 'corrupt' {
  if (pageIsNew(words, wordOffset)) return isAllZero(words, wordOffset) ? 'new' : 'corrupt'
  if (!hasSaneHead(words, wordOffset)) return 'corrupt'
  const stored = words[wordOffset + CHECKSUM_WORD]! & 0xffff
  return pageChecksum(words, wordOffset, blockNumber) === stored ? 'valid' : 'corrupt'
}

function hasSaneHead(words: Uint32Array, wordOffset: number): boolean {
  const flags = words[wordOffset + CHECKSUM_WORD]! >>> 16
  const lower = words[wordOffset + BOUNDS_WORD]! & 0xffff
  const upper = words[wordOffset + BOUNDS_WORD]! >>> 16
  const special = words[wordOffset + SPECIAL_WORD]! & 0xffff
  return (flags & ~VALID_FLAGS) === 0 && lower <= upper && upper <= special && special <= PAGE_BYTES && special % 8 === 0
}

function isAllZero(words: Uint32Array, wordOffset: number): boolean {
  for (let i = wordOffset; i < wordOffset + PAGE_WORDS; i++) if (words[i] !== 0) return false
  return true
}

/*
 * The hash is assembled for WebAssembly because only there does JavaScript reach vector instructions: 28 GB/s with the copy into
 * its memory, against 6.5 GB/s of the best plain loop (Node 24, one core). The code below is the whole module; its tests compare
 * it with a plain loop and with real servers.
 */
const LANES_PER_VECTOR = 4
const VECTORS = LANE_SEEDS.length / LANES_PER_VECTOR
const VECTOR_BYTES = 16
// Locals, in order: the read position; a mixed vector; the prime in every lane; the lanes' states.
const POSITION = 0
const MIXED = 1
const PRIMES = 2
const STATE = 3

function compileHash(): { hashPage: () => number; memory: Uint32Array } {
  const states = Array.from({ length: VECTORS }, (_, index) => index)
  const code = [
    ...constant([PRIME, PRIME, PRIME, PRIME]),
    ...set(PRIMES),
    ...states.flatMap((s) => [
      ...constant(LANE_SEEDS.slice(s * LANES_PER_VECTOR, (s + 1) * LANES_PER_VECTOR)),
      ...set(STATE + s),
    ]),
    ...loopWhile([
      ...states.flatMap((s) => mix(s, [...get(POSITION), ...load(s * VECTOR_BYTES), ...XOR])),
      ...get(POSITION),
      ...i32(VECTORS * VECTOR_BYTES),
      ...I32_ADD,
      ...tee(POSITION),
      ...i32(PAGE_BYTES),
      ...I32_LESS_THAN_UNSIGNED,
    ]),
    // Two rounds of zeros, so that the last words have spread over all bits.
    ...states.flatMap((s) => mix(s, [])),
    ...states.flatMap((s) => mix(s, [])),
    ...states.flatMap((s) => [...get(STATE + s), ...(s === 0 ? [] : XOR)]),
    ...set(MIXED),
    ...[0, 1, 2, 3].flatMap((lane) => [...get(MIXED), ...vector(27, lane), ...(lane === 0 ? [] : I32_XOR)]),
  ]
  const { run, memory: own } = assemble({
    code,
    returns: I32,
    locals: [
      [1, I32],
      [2 + VECTORS, V128],
    ],
  })
  return { hashPage: run as () => number, memory: new Uint32Array(own, 0, PAGE_WORDS) }
}

/** state = (value * prime) ^ (value >> 17), where value = state, changed by `input`. */
function mix(s: number, input: readonly number[]): number[] {
  const value = [...get(STATE + s), ...input, ...tee(MIXED)]
  return [...value, ...get(PRIMES), ...MULTIPLY, ...get(MIXED), ...i32(17), ...SHIFT_RIGHT, ...XOR, ...set(STATE + s)]
}

// Last in the file, because the constants above have to be there.
const { hashPage, memory } = compileHash()
