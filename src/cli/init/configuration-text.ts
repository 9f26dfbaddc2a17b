import type { Choices } from './choices.ts'

/** resus.yaml of what was chosen. JSON's strings are YAML's. */
export function configurationText(choices: Choices): string {
  const quoted = (text: string) => JSON.stringify(text)
  return `# Made by "resus init". "resus config" prints it as it is understood, with every default.
system: ${quoted(choices.system)}
state: ${quoted(choices.state)}
repository:
  storages:
    - { name: main, kind: directory, path: ${quoted(choices.storage)} }
  key: { passphrase: ${quoted(`file:${choices.passphrasePath}`)} }
components:
  ${choices.component}:
    kind: postgres
    tier: ${choices.tier}
    connection: ${quoted(`file:${choices.connectionPath}`)}
    dataDirectory: ${quoted(choices.server.dataDirectory)}
    stream: { synchronous: ${choices.synchronous}, slot: ${choices.slot} }
`
}
