import { readdir, readFile, realpath, stat, statfs } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { realPlace } from '../../postgres/running-clusters.ts'

const GIGABYTE = 1024 ** 3
const SLOT_GIGABYTES_MAX = 20
/** Of kernel and memory: nothing that is kept there outlasts the machine. */
const NO_DISK = new Set(['tmpfs', 'ramfs', 'overlay', 'squashfs', 'devtmpfs', 'proc', 'sysfs', 'iso9660', 'autofs'])
const SYSTEM_PLACE = /^\/(?:boot|proc|sys|dev|run|snap|tmp|etc)(?:\/|$)/
const DEVICES_MAX = 32

/** Whether two places, which need not be there yet, are lost with one disk: as far as this system tells. */
export async function shareDisk(one: string, other: string): Promise<boolean> {
  const [left, right] = await Promise.all([disksOf(one), disksOf(other)])
  return left.some((disk) => right.includes(disk))
}

/** Where a repository may go: the first mounted disk or share that is not that of the data directory. Undefined when there is none. */
export async function proposeStorage(dataDirectory: string): Promise<string | undefined> {
  for (const { place, type } of await mounts()) {
    if (place === '/' || NO_DISK.has(type) || SYSTEM_PLACE.test(place)) continue
    const info = await stat(place).catch(() => undefined)
    if (info?.isDirectory() === true && !(await shareDisk(place, dataDirectory))) return join(place, 'resus')
  }
  return undefined
}

/** How much WAL the server may keep for a receiver that is away: a quarter of what is free where its WAL is, 20 GB at most. */
export async function proposeSlotLimit(dataDirectory: string): Promise<string> {
  const { bavail, bsize } = await statfs(await realPlace(join(dataDirectory, 'pg_wal')))
  return `${Math.max(1, Math.min(SLOT_GIGABYTES_MAX, Math.floor((bavail * bsize) / 4 / GIGABYTE)))}GB`
}

/** The disks below a place: names of whole disks where the kernel tells, else the number of the file system. */
async function disksOf(place: string): Promise<string[]> {
  const { dev } = await stat(await nearest(place))
  // As glibc's gnu_dev_major and gnu_dev_minor.
  const [major, minor] = [Math.floor(dev / 256) & 0xfff, (dev & 0xff) | (Math.floor(dev / 4096) & 0xfff00)]
  const device = await realpath(`/sys/dev/block/${major}:${minor}`).catch(() => undefined)
  if (device === undefined) return [`file system ${dev}`]
  return await wholeDisks(device)
}

/** A partition lies on its disk, a logical volume on those below it. */
async function wholeDisks(device: string): Promise<string[]> {
  const disks = new Set<string>()
  const waiting = [device]
  for (let looked = 0; waiting.length > 0 && looked < DEVICES_MAX; looked += 1) {
    const path = waiting.pop()!
    const below = await readdir(join(path, 'slaves')).catch((): string[] => [])
    const isPartition = (await stat(join(path, 'partition')).catch(() => undefined)) !== undefined
    if (isPartition) waiting.push(dirname(path))
    else if (below.length === 0) disks.add(basename(path))
    else for (const name of below) waiting.push(await realpath(join(path, 'slaves', name)))
  }
  return [...disks]
}

async function nearest(place: string): Promise<string> {
  for (let at = await realPlace(place); ; at = dirname(at)) {
    const found = await stat(at).catch(() => undefined)
    if (found !== undefined || at === dirname(at)) return at
  }
}

async function mounts(): Promise<{ place: string; type: string }[]> {
  const text = await readFile('/proc/self/mounts', 'utf8').catch(() => '')
  return text.split('\n').flatMap((line) => {
    const [, place = '', type = ''] = line.split(' ')
    return place === '' ? [] : [{ place: place.replaceAll('\\040', ' '), type }]
  })
}
