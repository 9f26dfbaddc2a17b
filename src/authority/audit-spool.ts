import { readdir, readFile, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure, systemErrorCode } from '../errors.ts'
import { makeDirectory, replaceFile, syncDirectory } from '../protect/postgres/durable-file.ts'
import { bodyText, parseBody, type AuditBody } from './audit-entry.ts'

// What happened while the store was away: a directory with a file for each entry, one line of JSON. One file each, because several processes may add to it while another takes away what
// is in the chain by now: there is no end of a file to agree on.

/** Somebody who makes refusals by the thousand must not fill the disk. */
const ENTRIES_MAX = 100_000
const DIRECTORY = 'audit-spool'
const NAME = /^\d{15}-\d{6}-[0-9a-f-]{36}\.ndjson$/
const TIME_DIGITS = 15
const COUNT_DIGITS = 6

export interface SpooledEntry {
  readonly path: string
  readonly body: AuditBody
}

export class AuditSpool {
  readonly directory: string
  #count = 0
  /** How many are there, as of the last look, and since. */
  #entries: number | undefined

  /** In a server's state directory. */
  constructor(state: string) {
    this.directory = join(state, DIRECTORY)
  }

  /** Keeps an entry: durable when it resolves. Throws SPOOL_FULL, SPOOL_UNWRITABLE. */
  async add(body: AuditBody): Promise<void> {
    this.#entries ??= (await this.#names()).length
    if (this.#entries >= ENTRIES_MAX) {
      throw new Failure('SPOOL_FULL', `cannot keep an entry of the audit trail: ${ENTRIES_MAX} wait in "${this.directory}"`, {
        hint: 'bring the store back: they go into the trail then',
      })
    }
    this.#count += 1
    const time = String(Date.parse(body.at)).padStart(TIME_DIGITS, '0')
    const name = `${time}-${String(this.#count % 10 ** COUNT_DIGITS).padStart(COUNT_DIGITS, '0')}-${body.id}.ndjson`
    try {
      await makeDirectory(this.directory)
      await replaceFile(join(this.directory, name), `${bodyText(body)}\n`)
    } catch (cause) {
      throw new Failure('SPOOL_UNWRITABLE', `cannot keep an entry of the audit trail in "${this.directory}": ${String(cause)}`, {
        hint: 'is there room, and may this user write there?',
        cause,
      })
    }
    this.#entries += 1
  }

  /** The oldest, in order. What is no entry is put aside, under a name with ".damaged", and given as `damaged`. */
  async oldest(limit: number): Promise<{ readonly entries: readonly SpooledEntry[]; readonly damaged: readonly string[] }> {
    const names = await this.#names()
    this.#entries = names.length
    const entries: SpooledEntry[] = []
    const damaged: string[] = []
    for (const name of names.slice(0, limit)) {
      const path = join(this.directory, name)
      const body = parseBody(await readFile(path, 'utf8'))
      if (body === undefined) {
        await rename(path, `${path}.damaged`)
        damaged.push(`${path}.damaged`)
      } else entries.push({ path, body })
    }
    return { entries, damaged }
  }

  /** They are in the chain. */
  async remove(entries: readonly SpooledEntry[]): Promise<void> {
    for (const { path } of entries) await unlink(path).catch(ignoreMissing)
    if (entries.length > 0) await syncDirectory(this.directory)
    this.#entries = undefined
  }

  async #names(): Promise<string[]> {
    try {
      return (await readdir(this.directory)).filter((name) => NAME.test(name)).toSorted()
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return []
      throw error
    }
  }
}

function ignoreMissing(error: unknown): void {
  if (systemErrorCode(error) !== 'ENOENT') throw error
}
