import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import type { Installation } from '../../postgres/installation.ts'
import type { BackupManifest } from '../../repository/backups.ts'

/** Something that is otherwise on this host than where the backup was made. */
export interface Difference {
  readonly what: string
  /** By the backup. */
  readonly recorded: string
  readonly found: string
  /** What it means for the restored cluster. */
  readonly means: string
}

/** What is known of this host; undefined where it is not. */
export interface HostFacts {
  readonly installation: Installation | undefined
  readonly catalogVersion: number | undefined
}

/** Looks at this host: the programs that would start the cluster. */
export async function readHostFacts(installation: Installation | undefined): Promise<HostFacts> {
  return { installation, catalogVersion: installation === undefined ? undefined : await readCatalogVersion(installation) }
}

/** The one place where what a backup recorded of its server is held against this host. What is not known on either side is no difference. */
export function compareServer(recorded: BackupManifest['server'], host: HostFacts): Difference[] {
  const differences: Difference[] = []
  const { installation, catalogVersion } = host
  if (installation === undefined) {
    const means = `the cluster cannot be started here before PostgreSQL ${recorded.major} is installed`
    return [{ what: 'major version', recorded: String(recorded.major), found: 'not installed', means }]
  }
  if (catalogVersion !== undefined && catalogVersion !== recorded.catalogVersion) {
    const means = 'these programs refuse the cluster: they are of another build, a beta for instance'
    differences.push({
      what: 'catalog version',
      recorded: String(recorded.catalogVersion),
      found: String(catalogVersion),
      means,
    })
  }
  const version = recorded.version.split(' ')[0]!
  if (comparable(version) !== comparable(installation.version)) {
    const older = isOlder(installation.version, version)
    const means = older
      ? 'older programs than those that wrote it: defects that were mended are back'
      : 'newer programs: harmless'
    differences.push({ what: 'minor version', recorded: version, found: installation.version, means })
  }
  return differences
}

/** The catalog version that the programs were built with: the name of a tablespace's directory, which is a text in them. */
export async function readCatalogVersion({ major, binDirectory }: Installation): Promise<number | undefined> {
  const pattern = new RegExp(`PG_${major}_(\\d{9})`)
  let tail = ''
  for await (const chunk of createReadStream(join(binDirectory, 'postgres'), { highWaterMark: 1024 * 1024 })) {
    const text = tail + (chunk as Buffer).toString('latin1')
    const match = pattern.exec(text)
    if (match !== null) return Number(match[1])
    tail = text.slice(-32)
  }
  return undefined
}

function comparable(version: string): string {
  return /^\d+(?:\.\d+)?/.exec(version)?.[0] ?? version
}

function isOlder(left: string, right: string): boolean {
  const minor = (version: string) => Number(comparable(version).split('.')[1] ?? 0)
  return minor(left) < minor(right)
}
