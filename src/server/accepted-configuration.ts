import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { configurationDocument, type Configuration } from '../config/configuration.ts'
import { loadSystems } from '../config/systems.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { syncDirectory, writeNew } from '../protect/postgres/durable-file.ts'

// <state>/accepted -> accepted-<random>/
//   his.yaml       each system's file, under its own name: paths absolute, secrets still references
//   origin.json    { configPath, files: { "his.yaml": where it was read } }

const LINK = 'accepted'
const ORIGIN_FILE = 'origin.json'
/** What wrote one may still be read by a command that has just begun. */
const GENERATIONS_KEPT = 2

const originSchema = z.object({ configPath: z.string(), files: z.record(z.string(), z.string()) })

/**
 * The configuration that is in force, as files: jobs and receivers read these, so that a change that is refused stops none of them, nor a start. Replaced as a whole.
 * Whoever may read a file of the configuration may read its copy: the server of a restored cluster has to.
 */
export class AcceptedConfiguration {
  /** A directory, as `loadSystems` reads it. */
  readonly path: string
  readonly #state: string
  readonly #configPath: string

  constructor(state: string, configPath: string) {
    this.#state = state
    this.#configPath = resolve(configPath)
    this.path = join(state, LINK)
  }

  /** The copy of a system's file. */
  pathOf(configuration: Configuration): string {
    return join(this.path, basename(configuration.path))
  }

  /** Durable when this resolves. Throws DISK_FULL, CONFIG_UNREADABLE; then what was kept before is still there. */
  async keep(systems: readonly Configuration[]): Promise<void> {
    try {
      if (isSame((await this.load()) ?? [], systems)) return
      await this.#replace(systems)
    } catch (cause) {
      const code = systemErrorCode(cause)
      if (cause instanceof Failure || code === undefined) throw cause
      const isFull = code === 'ENOSPC' || code === 'EDQUOT'
      throw new Failure(
        isFull ? 'DISK_FULL' : 'CONFIG_UNREADABLE',
        `the configuration cannot be kept in "${this.path}": ${code}`,
        {
          hint: isFull ? 'make room' : 'may this user write there?',
          cause,
        },
      )
    }
  }

  /** What was kept last, of this configuration and no other; undefined when there is none, or it cannot be read. */
  async load(): Promise<readonly Configuration[] | undefined> {
    try {
      const origin = originSchema.parse(JSON.parse(await readFile(join(this.path, ORIGIN_FILE), 'utf8')))
      if (origin.configPath !== this.#configPath) return undefined
      return await read(this.path, origin.files)
    } catch (error) {
      // Without a copy all goes as if there never was one: the files themselves decide.
      if (error instanceof Failure || error instanceof SyntaxError || error instanceof z.ZodError) return undefined
      if (systemErrorCode(error) === undefined) throw error
      return undefined
    }
  }

  async #replace(systems: readonly Configuration[]): Promise<void> {
    const name = `${LINK}-${randomBytes(8).toString('hex')}`
    const directory = join(this.#state, name)
    await mkdir(directory, { mode: 0o711 })
    await chmod(directory, 0o711)
    const files: Record<string, string> = {}
    for (const configuration of systems) {
      const file = basename(configuration.path)
      files[file] = configuration.path
      await writeLike(
        configuration.path,
        join(directory, file),
        `${JSON.stringify(configurationDocument(configuration), undefined, 2)}\n`,
      )
    }
    await writeNew(join(directory, ORIGIN_FILE), JSON.stringify({ configPath: this.#configPath, files }))
    await syncDirectory(directory)
    // What does not read back as it was must never be in force.
    if (!isSame(await read(directory, files), systems)) {
      throw new Failure('CONFIG_UNREADABLE', `the configuration that was kept in "${directory}" reads otherwise`, {
        hint: 'was a file changed at that moment? Try again',
      })
    }
    const staged = join(this.#state, `${name}.new`)
    await symlink(name, staged)
    await rename(staged, this.path)
    await syncDirectory(this.#state)
    await this.#removeOld(name)
  }

  async #removeOld(current: string): Promise<void> {
    const names = (await readdir(this.#state)).filter((name) => name.startsWith(`${LINK}-`) && name !== current)
    const aged = await Promise.all(names.map(async (name) => ({ name, ms: (await stat(join(this.#state, name))).mtimeMs })))
    const old = aged.toSorted((left, right) => right.ms - left.ms).slice(GENERATIONS_KEPT - 1)
    for (const { name } of old) await rm(join(this.#state, name), { recursive: true, force: true })
  }
}

/** With the paths that the files had. */
async function read(directory: string, files: Readonly<Record<string, string>>): Promise<readonly Configuration[]> {
  const { systems } = await loadSystems(directory)
  return systems.map((configuration) => ({ ...configuration, path: files[basename(configuration.path)] ?? configuration.path }))
}

/** As whoever may read the original. */
async function writeLike(original: string, path: string, text: string): Promise<void> {
  const { mode, uid, gid } = await stat(original)
  await writeNew(path, text, { mode: 0o600 | (mode & 0o044), owner: { uid, gid } })
}

/** Whatever is left out where it has no value. */
function isSame(left: readonly Configuration[], right: readonly Configuration[]): boolean {
  const plain = (configurations: readonly Configuration[]) => JSON.parse(JSON.stringify(configurations)) as unknown
  return isDeepStrictEqual(plain(left), plain(right))
}
