import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'

// `npm run release -- --to DIRECTORY`: the source of this commit as an archive, a bill of its materials (CycloneDX 1.5), what is known of holes in them, and the digests of all.

const execute = promisify(execFile)
const ROOT = fileURLToPath(new URL('..', import.meta.url))
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024

const { values } = parseArgs({ options: { to: { type: 'string', default: 'release' } } })
const to = resolve(values.to)

await mkdir(to, { recursive: true })
const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string }
const changed = await run('git', ['status', '--porcelain', '--untracked-files=no'])
if (changed !== '') throw new Error(`commit first: what is released is a commit, and this has changed\n${changed}`)
const commit = (await run('git', ['rev-parse', 'HEAD'])).trim()

const archive = join(to, `resus-${version}.tar.gz`)
await run('git', ['archive', '--format=tar.gz', `--prefix=resus-${version}/`, `--output=${archive}`, commit])
const materials = join(to, `resus-${version}.cdx.json`)
await writeFile(materials, await run('npm', ['sbom', '--sbom-format', 'cyclonedx', '--omit', 'dev', '--package-lock-only']))
const audit = join(to, `resus-${version}.audit.json`)
const found = await knownHoles()
await writeFile(audit, `${JSON.stringify({ commit, ...found }, undefined, 2)}\n`)

const sums: string[] = []
for (const file of [archive, materials, audit]) {
  sums.push(
    `${createHash('sha256')
      .update(await readFile(file))
      .digest('hex')}  ${basename(file)}`,
  )
}
await writeFile(join(to, 'SHA256SUMS'), `${sums.join('\n')}\n`)
process.stdout.write(`${sums.join('\n')}\nknown holes: ${found.verdict}\n`)
// What nobody could ask about is not proven, and no reason to hold a release back; what is known is.
process.exitCode = found.verdict === 'none' || found.verdict === 'not proven' ? 0 : 1

/** Of the dependencies, as the registry knows them today. */
async function knownHoles(): Promise<{ readonly verdict: string; readonly report: unknown }> {
  const { stdout } = await execute('npm', ['audit', '--omit', 'dev', '--json'], { cwd: ROOT, maxBuffer: OUTPUT_BYTES_MAX }).catch(
    // It ends with 1 when it has found some.
    (error: unknown) => error as { stdout?: string },
  )
  try {
    const report = JSON.parse(stdout ?? '') as { metadata?: { vulnerabilities?: { total?: number } } }
    const total = report.metadata?.vulnerabilities?.total
    return { verdict: total === undefined ? 'not proven' : total === 0 ? 'none' : String(total), report }
  } catch {
    return { verdict: 'not proven', report: null }
  }
}

async function run(command: string, args: readonly string[]): Promise<string> {
  return (await execute(command, args, { cwd: ROOT, maxBuffer: OUTPUT_BYTES_MAX })).stdout
}
