import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

export interface ContainerFile {
  /** Of all stages; what comes from a stage before has its place in the checkout as source. */
  readonly copies: readonly { readonly stage: number; readonly sources: readonly string[]; readonly to: string }[]
  /** Number of the last stage. */
  readonly stage: number
  readonly entryPoint: readonly string[]
  readonly command: readonly string[]
}

/** deploy/container/Containerfile, as far as it can be followed without an engine. */
export async function containerFile(checkout: string): Promise<ContainerFile> {
  const text = await readFile(join(checkout, 'deploy/container/Containerfile'), 'utf8')
  const copies: { stage: number; sources: string[]; to: string }[] = []
  let [stage, entryPoint, command] = [0, [] as string[], [] as string[]]
  for (const line of text.split('\n')) {
    const [instruction = '', ...words] = line.split(' ')
    if (instruction === 'FROM') stage += 1
    if (instruction === 'ENTRYPOINT') entryPoint = JSON.parse(words.join(' ')) as string[]
    if (instruction === 'CMD') command = JSON.parse(words.join(' ')) as string[]
    if (instruction !== 'COPY') continue
    const paths = words.filter((word) => !word.startsWith('--')).map((word) => word.replace(/^\/opt\/resus\//, ''))
    copies.push({ stage, sources: paths.slice(0, -1), to: paths.at(-1) ?? '' })
  }
  return { copies, stage, entryPoint, command }
}
