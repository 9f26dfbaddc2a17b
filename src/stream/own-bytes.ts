/** The bytes in a buffer that is theirs alone, so that it can be handed to a thread; copied only where they share one. */
export function ownBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes
  const alone = buffer instanceof ArrayBuffer && bytes.byteLength === buffer.byteLength
  return alone ? new Uint8Array(buffer) : new Uint8Array(bytes)
}
