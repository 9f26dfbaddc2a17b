import type { Configuration } from '../../config/configuration.ts'
import { formatSecretReference } from '../../config/secret-reference.ts'
import { descriptorSchema, type Repository } from '../../repository/repository.ts'
import { DESCRIPTOR_KEY, KEY_PREFIX } from '../../repository/layout.ts'
import type { Secret } from '../../secret.ts'
import { readObject } from '../../storage/storage.ts'
import { resusVersion } from '../../version.ts'

/** What the sheet says of the repository itself. */
export interface SheetFacts {
  readonly repository: string
  readonly createdAt: string
  readonly where: string
  readonly keySlots: readonly string[]
  /** Of the key that signs evidence. */
  readonly signer: string
}

export interface SheetComponent {
  readonly name: string
  readonly dataDirectory: string
  /** Undefined when the server could not be asked. */
  readonly major: number | undefined
  readonly account: string
}

const BLANK = '_'.repeat(60)
const RULE = '='.repeat(78)

export async function readSheetFacts({ storage, id }: Repository, signer: string): Promise<SheetFacts> {
  const descriptor = descriptorSchema.parse(JSON.parse((await readObject(storage, DESCRIPTOR_KEY)).toString('utf8')))
  const keySlots: string[] = []
  for await (const { key } of storage.list(KEY_PREFIX)) keySlots.push(key)
  return { repository: id, createdAt: descriptor.createdAt, where: storage.description, keySlots, signer }
}

/**
 * The page that brings everything back when this machine is gone: plain text, to be printed. The same for the same repository and configuration. The
 * passphrase is in it only when it is given.
 */
export function recoverySheet(options: {
  readonly configuration: Configuration
  readonly facts: SheetFacts
  readonly components: readonly SheetComponent[]
  readonly passphrase: Secret | undefined
}): string {
  const { configuration, facts, components, passphrase } = options
  const majors = [
    ...new Set(components.map(({ major }) => (major === undefined ? 'the same major version' : `PostgreSQL ${major}`))),
  ]
  return `${RULE}
RECOVERY SHEET OF "${configuration.system}"
Print it. Keep it where a disaster that takes the machine does not take it too.
${RULE}

System          ${configuration.system}
Repository      ${facts.repository}, made ${facts.createdAt}
  lies in       ${facts.where}
Key slot        ${facts.keySlots.join('\n                ')}
                (opened by the passphrase, scrypt)
Passphrase      ${passphrase === undefined ? BLANK : passphrase.reveal().toString('utf8')}
                ${passphrase === undefined ? 'write it here by hand, or keep it sealed elsewhere. ' : ''}Without it nothing can be restored.
Evidence        signed by the key with the fingerprint (SHA-256)
                ${facts.signer.slice(0, 32)}
                ${facts.signer.slice(32)}
${components.map(describeComponent).join('\n')}

WHAT IS NEEDED
  1. A machine with ${majors.join(', ')}, and room for the data.
  2. Resus ${resusVersion()} or later, for instance in /opt/resus, after "npm ci".
  3. The repository: the disk, share or copy with the objects named above.
  4. The passphrase.
What was acknowledged in the last seconds lies in the receiver's spool: if its
disk lives, copy "${configuration.state}" along.

ON THE NEW MACHINE
As root:
${asRoot(configuration, components)}
As "${components[0]?.account ?? 'postgres'}", in the directory of Resus:
${asServer(configuration, components)}
The last command prints how to start the server. Look at it before anybody is
let in. Then protect it: "resus init" goes on from this configuration.
${RULE}
`
}

function describeComponent({ name, dataDirectory, major, account }: SheetComponent): string {
  const version = major === undefined ? 'PostgreSQL' : `PostgreSQL ${major}`
  return `Component       ${name}: ${version}, data directory ${dataDirectory},\n                account ${account}`
}

function asRoot(configuration: Configuration, components: readonly SheetComponent[]): string {
  const account = components[0]?.account ?? 'postgres'
  const directories = [...new Set([directoryOf(configuration.path), configuration.state])].map(quote)
  return `    install -d -m 700 -o ${account} -g "$(id -gn ${account})" ${directories.join(' ')}
    # mount the repository so that the path in the configuration below leads to it`
}

function asServer(configuration: Configuration, components: readonly SheetComponent[]): string {
  const { passphrase } = configuration.repository.key
  const enter =
    passphrase.kind === 'file'
      ? `(umask 077; cat > ${quote(passphrase.path)})      # type the passphrase, Enter, Ctrl-D`
      : `export ${passphrase.variable}=...                  # the passphrase`
  const [storage] = configuration.repository.storages
  const restores = components.map(({ name, dataDirectory }) => {
    const to = quote(`${dataDirectory}-restored`)
    return `    ./resus windows ${name}
    ./resus restore ${name} --to ${to} --preview
    ./resus restore ${name} --to ${to}`
  })
  const lines = [
    `system: ${JSON.stringify(configuration.system)}`,
    `state: ${JSON.stringify(configuration.state)}`,
    'repository:',
    `  storages: [{ name: ${storage?.name}, kind: ${storage?.kind}, path: ${JSON.stringify(storage?.path)} }]`,
    `  key: { passphrase: ${JSON.stringify(formatSecretReference(passphrase))} }`,
    'components:',
    ...configuration.components.map(({ name, kind, tier, connection, dataDirectory }) => {
      const source = connection.kind === 'text' ? connection.text : formatSecretReference(connection)
      const fields = [`tier: ${tier}`, `connection: ${JSON.stringify(source)}`, `dataDirectory: ${JSON.stringify(dataDirectory)}`]
      return `  ${name}: { kind: ${kind}, ${fields.join(', ')} }`
    }),
  ]
  return `    export RESUS_CONFIG=${quote(configuration.path)}
    cat > "$RESUS_CONFIG" <<'END'
${lines.join('\n')}
END
    ${enter}
${restores.join('\n')}`
}

/** For a POSIX shell. */
function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/'
}
