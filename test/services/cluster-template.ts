import { execFile } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdtemp, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { systemErrorCode } from '../../src/errors.ts'
import { initCluster, type InitClusterOptions } from '../../src/postgres/cluster-process.ts'
import { parseControlFile } from '../../src/postgres/control-file.ts'
import { crc32c } from '../../src/postgres/crc32c.ts'
import { parseSegmentName } from '../../src/postgres/wal-segment.ts'

const run = promisify(execFile)

type Init = Pick<InitClusterOptions, 'installation' | 'dataChecksums' | 'walSegmentMegabytes'>

/** Where a run of tests keeps its templates: test/run.ts makes it, and removes it. */
const TEMPLATES = process.env.RESUS_TEST_TEMPLATES
const CRC_OFFSET = 288
/** From 18 pg_control has one field more. */
const CRC_OFFSET_18 = 292
/** XLogLongPageHeaderData: behind the 24 bytes that each page of WAL begins with. */
const WAL_IDENTIFIER_OFFSET = 24

/**
 * What `initdb` makes in `directory`, with a system identifier of its own, but at the price of a copy: `initdb` runs once in a run of tests for
 * each choice of options. The files are not flushed.
 */
export async function makeCluster(init: Init, directory: string): Promise<void> {
  if (TEMPLATES === undefined) return await initCluster({ ...init, directory, sync: false })
  const { installation, dataChecksums, walSegmentMegabytes } = init
  const template = join(TEMPLATES, `${installation.major}-${dataChecksums}-${walSegmentMegabytes}`)
  if (!(await exists(template))) await makeTemplate(init, template)
  await run('cp', ['-R', '-p', template, directory])
  await renewSystemIdentifier(directory, installation.major)
}

/** Of two that make it at once the later one keeps what is there. */
async function makeTemplate(init: Init, template: string): Promise<void> {
  const made = await mkdtemp(`${template}.`)
  await initCluster({ ...init, directory: join(made, 'data'), sync: false })
  try {
    await rename(join(made, 'data'), template)
  } catch (error) {
    if (!['EEXIST', 'ENOTEMPTY'].includes(systemErrorCode(error) ?? '')) throw error
  }
  await rm(made, { recursive: true })
}

/** The identifier is in pg_control and at the head of each WAL segment, and nowhere else. */
async function renewSystemIdentifier(directory: string, major: number): Promise<void> {
  // As initdb forms it: the time in the upper half.
  const seconds = Math.floor(Date.now() / 1000)
  const identifier = Buffer.alloc(8)
  identifier.writeBigUInt64LE((BigInt(seconds) << 32n) | BigInt(randomInt(2 ** 32)))
  const controlPath = join(directory, 'global/pg_control')
  const control = await readFile(controlPath)
  const crcOffset = major >= 18 ? CRC_OFFSET_18 : CRC_OFFSET
  identifier.copy(control)
  control.writeUInt32LE(crc32c(control.subarray(0, crcOffset)), crcOffset)
  const { walSegmentSize } = parseControlFile(control)
  await writeFile(controlPath, control)
  const walDirectory = join(directory, 'pg_wal')
  for (const name of await readdir(walDirectory)) {
    if (parseSegmentName(name, walSegmentSize) === undefined) continue
    const file = await open(join(walDirectory, name), 'r+')
    await file.write(identifier, 0, identifier.length, WAL_IDENTIFIER_OFFSET)
    await file.close()
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return false
    throw error
  }
}
