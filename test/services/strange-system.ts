import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { openTemporaryDirectory } from '../../src/postgres/staged-runtime.ts'

/** A system whose database and repository are not on this host: the control plane has to live with that. */
export async function strangeSystem(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(await openTemporaryDirectory(), 'resus-strange-'))
  t.after(async () => rm(directory, { recursive: true, force: true }))
  await writeFile(join(directory, 'passphrase'), 'correct horse battery', { mode: 0o600 })
  const path = join(directory, 'resus.yaml')
  await writeFile(path, configurationText('his-db'))
  return path
}

/** Its configuration, with another component or tier. */
export function configurationText(component: string, tier = 'high'): string {
  return `system: "Osun <HIS> & \\"co\\""
state: state
repository:
  storages:
    - { name: main, kind: directory, path: repository }
  key: { passphrase: "file:passphrase" }
components:
  ${component}: { kind: postgres, tier: ${tier}, connection: "postgres://resus@127.0.0.1:1/postgres", dataDirectory: nowhere }
`
}
