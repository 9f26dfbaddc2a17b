// CRC-32C of long input, 32 bytes side by side, in the vector instructions that WebAssembly has on every processor.
//
// Why it works. The CRC's register, started at zero, is linear in the message: bytes that are moved d places forward count as themselves
// multiplied by a constant, and adding (xor) is joining. So a block of 128 bytes in front of another can be replaced by 128 bytes that are
// added to the next block, as long as they count for the same. Taken by columns, four bytes that lie 32 apart (they hold 32 bits, as the
// register does) are replaced by four others, by the same linear map in each of the 32 columns. A linear map of four bytes is a table of 16
// entries for each half of a byte, and looking up 16 bytes at once in a table of 16 is one instruction.
//
//   memory: tables [input byte 4][half 2][output byte 4][16] ‖ mask 16 (0x0f) ‖ state 128 ‖ data

import {
  AND,
  assemble,
  get,
  I32,
  I32_ADD,
  I32_LESS_THAN_UNSIGNED,
  i32,
  load,
  LOOK_UP,
  loopWhile,
  set,
  SHIFT_RIGHT_I8X16,
  store,
  tee,
  V128,
  XOR,
} from '../stream/wasm.ts'

/** Bytes that are folded at once. */
export const FOLD_BYTES = 128
const COLUMN_STRIDE = 32
const LANES = 16
const MASK_AT = 512
const STATE_AT = 1024
const DATA_AT = 4096
const DATA_BYTES = 60 * 1024

type Step = (crc: number) => number

/** Folds blocks one over the other. Undefined where this runtime has no vectors: tables do it then, at a quarter of the speed. */
export type BlockFolder = (blocks: Uint8Array, seed: number) => Uint8Array

/**
 * Makes the folder for a register's step by one zero byte. What it returns takes blocks (a multiple of FOLD_BYTES) and the register in
 * front of them, and gives the FOLD_BYTES that count for the same with a register of zero; they are valid until it is called again.
 */
export function makeFolder(zeroByte: Step): BlockFolder | undefined {
  const map = columnMap(zeroByte)
  const instance = assembleFold()
  if (map === undefined || instance === undefined) return undefined
  const memory = new Uint8Array(instance.memory)
  memory.set(halfByteTables(map))
  memory.fill(0x0f, MASK_AT, MASK_AT + LANES)
  const state = memory.subarray(STATE_AT, STATE_AT + FOLD_BYTES)
  return (blocks, seed) => {
    state.set(blocks.subarray(0, FOLD_BYTES))
    for (let byte = 0; byte < 4; byte++) state[byte] = state[byte]! ^ (seed >>> (8 * byte))
    for (let at = FOLD_BYTES; at < blocks.length; at += DATA_BYTES) {
      const piece = blocks.subarray(at, at + DATA_BYTES)
      memory.set(piece, DATA_AT)
      instance.run(DATA_AT, DATA_AT + piece.length)
    }
    return state
  }
}

/** What four bytes of a column become one block later, as a word of 32 bits; undefined when no four bytes could stand for them. */
function columnMap(zeroByte: Step): ((word: number) => number) | undefined {
  const advance = (crc: number, bytes: number) => {
    let moved = crc
    for (let byte = 0; byte < bytes; byte++) moved = zeroByte(moved)
    return moved
  }
  // A byte in the register's lowest place, moved one on, counts as the byte itself in the message.
  const counts = Array.from({ length: 32 }, (_, bit) => {
    const byte = bit >> 3
    return advance(1 << (bit & 7), FOLD_BYTES - COLUMN_STRIDE * byte)
  })
  const inverse = invert(counts)
  if (inverse === undefined) return undefined
  return (word) => apply(inverse, advance(apply(counts, word), FOLD_BYTES))
}

/** A linear map as what becomes of each bit. */
function apply(map: readonly number[], word: number): number {
  return map.reduce((sum, image, bit) => (((word >>> bit) & 1) === 1 ? sum ^ image : sum), 0)
}

/** The map that undoes another (Gauss and Jordan, over two elements). Undefined when there is none. */
function invert(map: readonly number[]): number[] | undefined {
  const rows = map.map((image, bit) => ({ image, source: 1 << bit }))
  for (let bit = 0; bit < 32; bit++) {
    const pivot = rows.findIndex(({ image }, index) => index >= bit && ((image >>> bit) & 1) === 1)
    if (pivot < 0) return undefined
    const row = rows[pivot]!
    rows[pivot] = rows[bit]!
    rows[bit] = row
    for (const [index, other] of rows.entries()) {
      if (index === bit || ((other.image >>> bit) & 1) === 0) continue
      rows[index] = { image: other.image ^ row.image, source: other.source ^ row.source }
    }
  }
  return rows.map(({ source }) => source)
}

function halfByteTables(map: (word: number) => number): Uint8Array {
  const tables = new Uint8Array(MASK_AT)
  for (let byte = 0; byte < 4; byte++) {
    for (let entry = 0; entry < 32; entry++) {
      const [half, value] = [entry >> 4, entry & 15]
      const word = map(value << (8 * byte + 4 * half))
      for (let output = 0; output < 4; output++) {
        tables[tableAt({ byte, half, output }) + value] = word >>> (8 * output)
      }
    }
  }
  return tables
}

function tableAt({ byte, half, output }: { byte: number; half: number; output: number }): number {
  return ((byte * 2 + half) * 4 + output) * LANES
}

const FROM = 0
const TO = 1
/** Locals: the state's eight vectors, the halves of four of them, the mask. */
const stateOf = (column: number, byte: number) => 2 + column * 4 + byte
const halfOf = (byte: number, half: number) => 10 + byte * 2 + half
const MASK = 18
const VECTOR_LOCALS = 17

const BYTES = [0, 1, 2, 3]
const COLUMNS = [0, 1]
const placeOf = (column: number, byte: number) => COLUMN_STRIDE * byte + LANES * column

/** Folds the blocks of [from, to) over the state. Undefined on an old processor, or in a runtime without relaxed SIMD: it is only for speed. */
function assembleFold(): ReturnType<typeof assemble> | undefined {
  const each = (make: (column: number, byte: number) => number[]) =>
    COLUMNS.flatMap((column) => BYTES.flatMap((byte) => make(column, byte)))
  const next = [...get(FROM), ...i32(FOLD_BYTES), ...I32_ADD, ...tee(FROM), ...get(TO), ...I32_LESS_THAN_UNSIGNED]
  const code = [
    ...i32(0),
    ...load(MASK_AT),
    ...set(MASK),
    ...each((column, byte) => [...i32(0), ...load(STATE_AT + placeOf(column, byte)), ...set(stateOf(column, byte))]),
    ...loopWhile([...COLUMNS.flatMap(foldColumn), ...next]),
    ...each((column, byte) => [...i32(0), ...get(stateOf(column, byte)), ...store(STATE_AT + placeOf(column, byte))]),
  ]
  try {
    return assemble({ code, parameters: [I32, I32], locals: [[VECTOR_LOCALS, V128]] })
  } catch {
    return undefined
  }
}

/** state := next block ^ map(state), for 16 columns. */
function foldColumn(column: number): number[] {
  const low = (vector: number[]) => [...vector, ...get(MASK), ...AND]
  const halves = BYTES.flatMap((byte) => {
    const state = get(stateOf(column, byte))
    const high = low([...state, ...i32(4), ...SHIFT_RIGHT_I8X16])
    return [...low(state), ...set(halfOf(byte, 0)), ...high, ...set(halfOf(byte, 1))]
  })
  const lookUp = (output: number, byte: number, half: number) => {
    const table = [...i32(0), ...load(tableAt({ byte, half, output }))]
    return [...table, ...get(halfOf(byte, half)), ...LOOK_UP, ...XOR]
  }
  const outputs = BYTES.flatMap((output) => {
    const next = [...get(FROM), ...load(placeOf(column, output))]
    const mapped = BYTES.flatMap((byte) => [...lookUp(output, byte, 0), ...lookUp(output, byte, 1)])
    return [...next, ...mapped, ...set(stateOf(column, output))]
  })
  return [...halves, ...outputs]
}
