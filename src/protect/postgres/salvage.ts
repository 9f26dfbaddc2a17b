import { systemErrorCode } from '../../errors.ts'

// Reading what a failing disk still gives.

/** What is read at once while all goes well, and what is given up at once when it does not: a sector of a disk, a page of the cache. */
const WINDOW_BYTES = 64 * 1024
const SECTOR_BYTES = 4096

export interface Salvage {
  readonly size: number
  /** As `FileHandle.read`: may give less than was asked for, and fails with EIO for what the disk does not give. */
  readonly read: (buffer: Buffer, offset: number) => Promise<number>
  /** Writes all of it. What is never written is zero. */
  readonly write: (buffer: Buffer, offset: number) => Promise<void>
  readonly signal: AbortSignal
}

/** Gives the ranges that could not be read, each as long as it is. Throws every error but EIO of a read. */
export async function salvage({ size, read, write, signal }: Salvage): Promise<{ offset: number; bytes: number }[]> {
  const missing: { offset: number; bytes: number }[] = []
  for (let offset = 0, window = WINDOW_BYTES; offset < size;) {
    signal.throwIfAborted()
    const buffer = Buffer.alloc(Math.min(window, size - offset))
    const bytesRead = await read(buffer, offset).catch((error: unknown) => {
      if (systemErrorCode(error) !== 'EIO') throw error
      return undefined
    })
    if (bytesRead === 0) break
    if (bytesRead !== undefined) {
      // Less than was asked for is what comes before a bad sector: what is behind it may be good.
      await write(buffer.subarray(0, bytesRead), offset)
      offset += bytesRead
      if (offset % WINDOW_BYTES === 0) window = WINDOW_BYTES
    } else if (window > SECTOR_BYTES) {
      window = SECTOR_BYTES
    } else {
      const bytes = Math.min(SECTOR_BYTES - (offset % SECTOR_BYTES), size - offset)
      const last = missing.at(-1)
      if (last !== undefined && last.offset + last.bytes === offset) last.bytes += bytes
      else missing.push({ offset, bytes })
      offset += bytes
    }
  }
  return missing
}
