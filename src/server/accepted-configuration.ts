import { randomBytes } from 'node:crypto'
import { chmod, lstat, mkdir, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { configurationDocument, type Configuration } from '../config/configuration.ts'
import { isSystemFile, loadSystems } from '../config/systems.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { syncDirectory, writeNew } from '../protect/postgres/durable-file.ts'

// <state>/accepted -> accepted-<random>/
//   his.yaml       each system's file, under its own name (one that is no *.yaml gets it): paths absolute, secrets still references
//   origin.json    { configPath, files: { "his.yaml": where it was read } }

const LINK = 'accepted'
/** Of a link that is not in place yet. */
const STAGED = '.new'
const ORIGIN_FILE = 'origin.json'
/** What wrote one may still be read by a command that has just begun. */
const GENERATIONS_KEPT = 2

const originSchema = z.object({ configPath: z.string(), files: z.record(z.string(), z.string()) })

/**
 * The configuration that is in force, as files: jobs and receivers read these, so that a change that is refused stops none of them, nor a start. Replaced as a whole.
 * Whoever may read a file of the configuration may read its copy: the server of a restored cluster has to.
 */
export class AcceptedConfiguration {
  readonly #state: string
  readonly #configPath: string
  readonly #link: string
  /** Whether the files themselves are read, for want of a copy of them. */
  #isUnkept = false

  constructor(state: string, configPath: string) {
    this.#state = state
    this.#configPath = resolve(configPath)
    this.#link = join(state, LINK)
  }

  /** What jobs and receivers read, as `loadSystems` reads it. */
  get path(): string {
    return this.#isUnkept ? this.#configPath : this.#link
  }

  /** Of a system. */
  pathOf(configuration: Configuration): string {
    return this.#isUnkept ? configuration.path : join(this.#link, copyName(configuration.path))
  }

  /** The files themselves are read, until something is kept: nobody can say yet what was accepted. */
  goByFiles(): void {
    this.#isUnkept = true
  }

  /** At a start: where what was loaded cannot be kept, its files are read instead until it can. Gives why; null when it is kept. */
  async begin(systems: readonly Configuration[]): Promise<string | null> {
    try {
      await this.keep(systems)
      return null
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#isUnkept = true
      return error.message
    }
  }

  /** Durable when this resolves. Throws DISK_FULL, CONFIG_UNREADABLE; then what was kept before is still there. */
  async keep(systems: readonly Configuration[]): Promise<void> {
    try {
      if (!isSame((await this.load()) ?? [], systems)) await this.#replace(systems)
      this.#isUnkept = false
    } catch (cause) {
      const code = systemErrorCode(cause)
      if (cause instanceof Failure || code === undefined) throw cause
      const isFull = code === 'ENOSPC' || code === 'EDQUOT'
      throw new Failure(
        isFull ? 'DISK_FULL' : 'CONFIG_UNREADABLE',
        `the configuration cannot be kept in "${this.#link}": ${code}`,
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
      const origin = originSchema.parse(JSON.parse(await readFile(join(this.#link, ORIGIN_FILE), 'utf8')))
      if (origin.configPath !== this.#configPath) return undefined
      return await read(this.#link, origin.files)
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
    const staged = join(this.#state, `${name}${STAGED}`)
    try {
      await this.#write(directory, systems)
      await symlink(name, staged)
      await rename(staged, this.#link)
    } catch (error) {
      // It is tried again, for as long as the disk is full.
      for (const path of [staged, directory]) await rm(path, { recursive: true, force: true }).catch(() => undefined)
      throw error
    }
    await syncDirectory(this.#state)
    // The new one is in force: what cannot be removed now is removed after the next.
    await this.#removeOld(name).catch(() => undefined)
  }

  async #write(directory: string, systems: readonly Configuration[]): Promise<void> {
    await mkdir(directory, { mode: 0o711 })
    await chmod(directory, 0o711)
    const files: Record<string, string> = {}
    for (const configuration of systems) {
      const file = copyName(configuration.path)
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
  }

  async #removeOld(current: string): Promise<void> {
    const names = (await readdir(this.#state)).filter((name) => name.startsWith(`${LINK}-`) && name !== current)
    // One that was killed before it put its link in place has left it.
    const staged = names.filter((name) => name.endsWith(STAGED))
    const before = names.filter((name) => !name.endsWith(STAGED))
    const aged = await Promise.all(before.map(async (name) => ({ name, ms: (await lstat(join(this.#state, name))).mtimeMs })))
    const old = aged.toSorted((left, right) => right.ms - left.ms).slice(GENERATIONS_KEPT - 1)
    for (const name of [...staged, ...old.map((each) => each.name)]) {
      await rm(join(this.#state, name), { recursive: true, force: true })
    }
  }
}

/** In a directory a system's file is known by its name; given by itself it may have any. */
function copyName(path: string): string {
  const name = basename(path)
  return [name, `${name}.yaml`].find(isSystemFile) ?? 'system.yaml'
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
