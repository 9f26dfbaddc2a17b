import { forgetSizes, readSizeTrends, recordSizes, type SizeEntry, type SizeName } from '../catalog/sizes.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { changePerDay, daysLeft, type TrendPoint } from '../recovery/trend.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'

/** By so many days trends are told. */
const TREND_MS = 30 * 24 * 3_600_000
const BYTES_AHEAD_DAYS = 30

/** How large something is, and where it goes. */
export interface Growth {
  readonly bytes: number | null
  /** Null with less than a day of measurements. */
  readonly bytesPerDay: number | null
  /** In 30 days, as it goes on now. */
  readonly bytesIn30Days: number | null
}

export interface SystemSizes {
  readonly system: string
  readonly storage: { readonly bytes: number | null; readonly free: Growth; readonly daysLeft: number | null }
  readonly components: readonly { readonly component: string; readonly cluster: Growth; readonly stored: Growth }[]
}

/** Writes sizes down hour by hour, and tells where they go. */
export class SizeWatch {
  readonly #store: Store
  readonly #catalogue: Catalogue
  readonly #clock: Clock
  /** Change per day of everything that is measured; null where nobody can tell. */
  #changes = new Map<string, number | null>()
  readonly #storages = new Map<string, { readonly sizeBytes: number; readonly freeBytes: number }>()

  constructor(options: { readonly store: Store; readonly catalogue: Catalogue; readonly clock: Clock }) {
    this.#store = options.store
    this.#catalogue = options.catalogue
    this.#clock = options.clock
  }

  noteStorage(system: string, room: { readonly sizeBytes: number; readonly freeBytes: number }): void {
    this.#storages.set(system, room)
  }

  /** Of several nodes one writes; every one reads what was written. */
  async look(writes: boolean): Promise<void> {
    const now = new Date(this.#clock.now())
    if (writes) {
      await recordSizes(this.#store.sql, now, this.#entries())
      await forgetSizes(this.#store.sql, now)
    }
    const changes = new Map<string, number | null>()
    for (const { system } of this.#catalogue.systems) {
      const points = new Map<string, TrendPoint[]>()
      const from = new Date(now.getTime() - TREND_MS)
      for (const { component, name, at, bytes } of await readSizeTrends(this.#store.sql, { system, from })) {
        const key = keyOf({ system, component, name })
        const known = points.get(key) ?? []
        known.push({ atMs: at.getTime(), value: bytes })
        points.set(key, known)
      }
      for (const [key, each] of points) changes.set(key, changePerDay(each))
    }
    this.#changes = changes
  }

  /** Null when nobody can tell, or it does not shrink. */
  daysLeft(system: string): number | null {
    const free = this.#storages.get(system)?.freeBytes
    return free === undefined ? null : daysLeft(free, this.#changes.get(keyOf({ system, component: null, name: 'free' })) ?? null)
  }

  views(): SystemSizes[] {
    return this.#catalogue.systems.map(({ system }) => {
      const room = this.#storages.get(system)
      const left = this.daysLeft(system)
      return {
        system,
        storage: {
          bytes: room?.sizeBytes ?? null,
          free: this.#growth({ system, component: null, name: 'free' }, room?.freeBytes),
          daysLeft: left === null ? null : Math.floor(left),
        },
        components: this.#catalogue
          .pictures()
          .filter((picture) => picture.system === system)
          .map((picture) => this.#component(picture)),
      }
    })
  }

  #component({ system, component: { name: component }, backups }: ComponentPicture): SystemSizes['components'][number] {
    return {
      component,
      cluster: this.#growth({ system, component, name: 'cluster' }, backups[0]?.bytes),
      stored: this.#growth({ system, component, name: 'stored' }, backups.length === 0 ? undefined : storedOf(backups)),
    }
  }

  #growth(of: Measured, bytes: number | undefined): Growth {
    const change = this.#changes.get(keyOf(of)) ?? null
    return {
      bytes: bytes ?? null,
      bytesPerDay: change === null ? null : Math.round(change),
      bytesIn30Days: change === null || bytes === undefined ? null : Math.max(0, Math.round(bytes + BYTES_AHEAD_DAYS * change)),
    }
  }

  #entries(): SizeEntry[] {
    const storages = [...this.#storages].flatMap(([system, { sizeBytes, freeBytes }]): SizeEntry[] => [
      { system, component: null, name: 'storage', bytes: sizeBytes },
      { system, component: null, name: 'free', bytes: freeBytes },
    ])
    const components = this.#catalogue.pictures().flatMap(({ system, component: { name: component }, backups }): SizeEntry[] => {
      const [newest] = backups
      if (newest === undefined) return []
      return [
        { system, component, name: 'cluster', bytes: newest.bytes },
        { system, component, name: 'stored', bytes: storedOf(backups) },
      ]
    })
    const configured = new Set(this.#catalogue.systems.map(({ system }) => system))
    return [...storages, ...components].filter(({ system }) => configured.has(system))
  }
}

interface Measured {
  readonly system: string
  readonly component: string | null
  readonly name: SizeName
}

function keyOf({ system, component, name }: Measured): string {
  return JSON.stringify([system, component, name])
}

function storedOf(backups: readonly { readonly bytesStored: number }[]): number {
  return backups.reduce((sum, { bytesStored }) => sum + bytesStored, 0)
}
