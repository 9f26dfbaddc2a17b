import { assert } from '../assert.ts'

// An assembler for one small function of vector instructions: only in WebAssembly does JavaScript reach them. Instructions are arrays of bytes
// (WebAssembly Core Specification 2.0, chapter 5); a caller concatenates them.

export const V128 = 0x7b
export const I32 = 0x7f
export const I64 = 0x7e

export const get = (local: number): number[] => [0x20, local]
export const set = (local: number): number[] => [0x21, local]
export const tee = (local: number): number[] => [0x22, local]
export const i32 = (value: number): number[] => [0x41, ...signed(value)]
export const vector = (opcode: number, ...immediate: number[]): number[] => [0xfd, ...unsigned(opcode), ...immediate]
export const constant = (lanes: readonly number[]): number[] => vector(12, ...new Uint8Array(Uint32Array.from(lanes).buffer))
/** Of 16 bytes, at the address on the stack plus `offset`. */
export const load = (offset: number): number[] => vector(0, 0, ...unsigned(offset))
/** The address is below the value on the stack. */
export const store = (offset: number): number[] => vector(11, 0, ...unsigned(offset))
export const AND = vector(78)
export const XOR = vector(81)
export const SHIFT_RIGHT = vector(173)
export const SHIFT_RIGHT_I8X16 = vector(141)
/** Looks 16 bytes up in a table of 16. Relaxed SIMD: what an index above 15 gives is open. */
export const LOOK_UP = vector(256)
export const ADD_I32X4 = vector(174)
export const MULTIPLY = vector(181)
export const ADD_I64X2 = vector(206)
/** Products of 64 bits of the two lower, and the two upper, lanes of 32 bits. */
export const MULTIPLY_LOW = vector(222)
export const MULTIPLY_HIGH = vector(223)
export const laneI64 = (lane: 0 | 1): number[] => vector(29, lane)
export const I32_XOR = [0x73]
export const I32_ADD = [0x6a]
export const I32_LESS_THAN_UNSIGNED = [0x49]
export const I64_ADD = [0x7c]
export const I64_MULTIPLY = [0x7e]
export const I64_SHIFT_RIGHT = [0x88]
export const I64_AND = [0x83]
export const i64 = (value: number): number[] => [0x42, ...signed(value)]
export const loadI64 = (offset: number): number[] => [0x29, 0, ...unsigned(offset)]
/** The address is below the value on the stack; stores the lower 32 bits. */
export const storeI64As32 = (offset: number): number[] => [0x3e, 0, ...unsigned(offset)]

/** Repeats the body while it leaves true. */
export function loopWhile(body: readonly number[]): number[] {
  return [0x03, 0x40, ...body, 0x0d, 0x00, 0x0b]
}

// The part of the global that is used here: TypeScript declares it for browsers only.
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> }
  readonly Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer }
}

const MAGIC_AND_VERSION = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]

interface FunctionOptions {
  readonly code: readonly number[]
  /** Types; they are the first locals. */
  readonly parameters?: readonly number[]
  readonly returns?: typeof I32
  /** Counts and types, in the order of their numbers. */
  readonly locals: readonly (readonly [count: number, type: number])[]
}

/** A module of one function, and 64 KiB of memory. Throws where the runtime does not know an instruction. */
export function assemble(options: FunctionOptions): { run: (...values: number[]) => unknown; memory: ArrayBuffer } {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(moduleOf(options)))
  const { run, memory } = exports
  assert(typeof run === 'function' && memory instanceof WebAssembly.Memory, 'the module exports its function and its memory')
  return { run: run as (...values: number[]) => unknown, memory: memory.buffer }
}

function moduleOf(options: FunctionOptions): Uint8Array<ArrayBuffer> {
  const section = (id: number, content: readonly number[]) => [id, ...unsigned(content.length), ...content]
  const name = (text: string) => [text.length, ...Buffer.from(text)]
  const { parameters = [] } = options
  const results = options.returns === undefined ? [0] : [1, options.returns]
  const locals = [options.locals.length, ...options.locals.flatMap(([count, type]) => [...unsigned(count), type])]
  const body = [...locals, ...options.code, 0x0b]
  return Uint8Array.from([
    ...MAGIC_AND_VERSION,
    ...section(1, [1, 0x60, parameters.length, ...parameters, ...results]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, 1]),
    ...section(7, [2, ...name('memory'), 2, 0, ...name('run'), 0, 0]),
    ...section(10, [1, ...unsigned(body.length), ...body]),
  ])
}

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)]
}

/** LEB128 of a number that is not negative: the top bit of its last byte's seven has to be clear. */
function signed(value: number): number[] {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >>> 7)]
}
