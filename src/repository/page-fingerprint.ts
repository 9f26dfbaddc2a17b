import { createCipheriv } from 'node:crypto'
import {
  ADD_I32X4,
  ADD_I64X2,
  assemble,
  get,
  I32,
  I32_ADD,
  I32_LESS_THAN_UNSIGNED,
  I64,
  I64_ADD,
  I64_AND,
  I64_MULTIPLY,
  I64_SHIFT_RIGHT,
  i32,
  i64,
  laneI64,
  load,
  loadI64,
  loopWhile,
  MULTIPLY_HIGH,
  MULTIPLY_LOW,
  set,
  storeI64As32,
  tee,
  V128,
} from '../stream/wasm.ts'
import { PIECE_BYTES } from './blob.ts'
import { FINGERPRINT_BYTES } from './region.ts'

/*
 * The fingerprint of a page (docs/format.md, "Fingerprints"; why not SHA-256: docs/decisions/0007-page-fingerprints.md). A keyed universal hash of
 * 128 bits in two steps: NH with four Toeplitz passes, as in UMAC (RFC 4418, 5.2; Black et al., CRYPTO '99), makes 8 words of 32 bits of a
 * page; a multilinear hash of those and of the page's length, four times with keys of their own, makes the 16 bytes
 * (Lemire and Kaser, "Strongly universal string hashing is fast"). Two different pages have the same fingerprint with a probability of
 * at most 2^-127, whoever chose them, as long as he does not know the key.
 */

const PASSES = 4
const PASS_SHIFT_BYTES = 16
const NH_KEY_BYTES = PIECE_BYTES + (PASSES - 1) * PASS_SHIFT_BYTES
/** Words that NH makes: two for each pass. */
const WORDS = 2 * PASSES
/** For each of the four results: a key for each word, one for the length, and one to add. */
const RESULT_KEYS = WORDS + 2
const RESULTS = FINGERPRINT_BYTES / 4
const KEY_BYTES = NH_KEY_BYTES + RESULTS * RESULT_KEYS * 8

// The memory: the page, its length, the keys, the results.
const LENGTH_AT = PIECE_BYTES
const KEY_AT = LENGTH_AT + 16
const RESULT_KEYS_AT = KEY_AT + NH_KEY_BYTES
const RESULT_AT = KEY_AT + KEY_BYTES

// Locals: the position; two vectors of the page, two with the key added; the sums of the passes; the words; a sum.
const POSITION = 0
const [LEFT, RIGHT, LEFT_KEYED, RIGHT_KEYED] = [1, 2, 3, 4]
const SUM = 5
const WORD = SUM + PASSES
const RESULT = WORD + WORDS
const BLOCK_BYTES = 32

/** Computes fingerprints with one key. One for each thread. */
export class PageFingerprinter {
  readonly #run: () => unknown
  readonly #page: Uint8Array
  readonly #length: Uint32Array
  readonly #result: Uint8Array

  /** `pageKey` has 32 bytes. */
  constructor(pageKey: Uint8Array) {
    const { run, memory } = assemble({
      code: [...sumPasses(), ...splitWords(), ...combineWords()],
      locals: [
        [1, I32],
        [4 + PASSES, V128],
        [WORDS + 1, I64],
      ],
    })
    this.#run = run
    this.#page = new Uint8Array(memory, 0, PIECE_BYTES)
    this.#length = new Uint32Array(memory, LENGTH_AT, 1)
    this.#result = new Uint8Array(memory, RESULT_AT, FINGERPRINT_BYTES)
    // The key's stream: AES-256-CTR from zero.
    const stream = createCipheriv('aes-256-ctr', pageKey, Buffer.alloc(16)).update(Buffer.alloc(KEY_BYTES))
    new Uint8Array(memory, KEY_AT, KEY_BYTES).set(stream)
  }

  /** Puts the fingerprints of all pages of `content` into `to`, from `at` on. The last page may be shorter. */
  fingerprint(content: Uint8Array, to: Uint8Array, at = 0): void {
    let next = at
    for (let from = 0; from < content.length; from += PIECE_BYTES, next += FINGERPRINT_BYTES) {
      const page = content.subarray(from, from + PIECE_BYTES)
      this.#page.set(page)
      if (page.length < PIECE_BYTES) this.#page.fill(0, page.length)
      this.#length[0] = page.length
      this.#run()
      to.set(this.#result, next)
    }
  }
}

/** Each pass: the sum of (left + key) x (right + key) over all pairs of words that are 16 bytes apart. */
function sumPasses(): number[] {
  const at = (offset: number) => [...get(POSITION), ...load(offset)]
  const passes = Array.from({ length: PASSES }, (_, pass) => {
    const key = KEY_AT + pass * PASS_SHIFT_BYTES
    const left = [...get(LEFT), ...at(key), ...ADD_I32X4, ...set(LEFT_KEYED)]
    const right = [...get(RIGHT), ...at(key + 16), ...ADD_I32X4, ...set(RIGHT_KEYED)]
    const pair = [...get(LEFT_KEYED), ...get(RIGHT_KEYED)]
    const add = [...pair, ...MULTIPLY_LOW, ...ADD_I64X2, ...pair, ...MULTIPLY_HIGH, ...ADD_I64X2]
    return [...left, ...right, ...get(SUM + pass), ...add, ...set(SUM + pass)]
  })
  const read = [...at(0), ...set(LEFT), ...at(16), ...set(RIGHT)]
  const next = [
    ...get(POSITION),
    ...i32(BLOCK_BYTES),
    ...I32_ADD,
    ...tee(POSITION),
    ...i32(PIECE_BYTES),
    ...I32_LESS_THAN_UNSIGNED,
  ]
  return loopWhile([...read, ...passes.flat(), ...next])
}

/** The two lanes of a pass make one number of 64 bits, and that two words. */
function splitWords(): number[] {
  const lower = [...i64(0xffffffff), ...I64_AND]
  return Array.from({ length: PASSES }, (_, pass) => {
    const sum = [...get(SUM + pass), ...laneI64(0), ...get(SUM + pass), ...laneI64(1), ...I64_ADD, ...tee(RESULT)]
    const words = WORD + 2 * pass
    return [...sum, ...lower, ...set(words), ...get(RESULT), ...i64(32), ...I64_SHIFT_RIGHT, ...set(words + 1)]
  }).flat()
}

/** Each result: the upper half of (added key + sum of key x word), modulo 2^64. */
function combineWords(): number[] {
  return Array.from({ length: RESULTS }, (_, result) => {
    const key = (index: number) => [...i32(0), ...loadI64(RESULT_KEYS_AT + 8 * (result * RESULT_KEYS + index))]
    const words = Array.from({ length: WORDS }, (_word, word) => [...key(word), ...get(WORD + word), ...I64_MULTIPLY, ...I64_ADD])
    const length = [...key(WORDS), ...i32(0), ...loadI64(LENGTH_AT), ...I64_MULTIPLY, ...I64_ADD]
    const sum = [...key(WORDS + 1), ...words.flat(), ...length]
    return [...i32(0), ...sum, ...i64(32), ...I64_SHIFT_RIGHT, ...storeI64As32(RESULT_AT + 4 * result)]
  }).flat()
}
