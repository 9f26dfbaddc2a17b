/** The bytes in a buffer that is theirs alone, so that it can be handed to a thread; copied only where they share one. */
export function ownBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes
  const alone = buffer instanceof ArrayBuffer && bytes.byteLength === buffer.byteLength
  return alone ? new Uint8Array(buffer) : new Uint8Array(bytes)
}

/**
 * Gives the memory of bytes that nobody will look at again back at once. Left to the garbage collector, the blocks of a backup make it
 * run over and over: a sixth of all processor time (what it counts is memory that is held, not objects).
 */
export function releaseBytes(bytes: Uint8Array): void {
  const { buffer } = bytes
  // A small Buffer is a part of a pool that others share.
  if (buffer instanceof ArrayBuffer && bytes.byteLength === buffer.byteLength) buffer.transfer(0)
}

/** The same with the whole buffer that the bytes lie in, of which nobody else may hold a part. */
export function releaseBuffer({ buffer }: Uint8Array): void {
  // What Node cut from its pool shares that with others.
  if (buffer instanceof ArrayBuffer && buffer.byteLength > Buffer.poolSize) buffer.transfer(0)
}
