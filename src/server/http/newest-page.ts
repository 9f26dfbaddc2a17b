/** What lists of backups are in order of. */
export interface Dated {
  readonly finishedAt: string
  readonly system: string
  readonly component: string
  readonly id: string
}

export interface Page<T> {
  readonly items: T[]
  /** Something comes behind it. */
  readonly hasMore: boolean
}

/**
 * A page of many lists as if they were one, newest first; each is in that order by itself. It begins behind `after`, also when that has gone. Looks at no more of them than the page
 * needs, so that hundreds of components with thousands of backups cost as much as one.
 */
export function newestPage<T extends Dated>(
  lists: readonly (readonly T[])[],
  { after, limit }: { readonly after: Dated | undefined; readonly limit: number },
): Page<T> {
  const heads = lists.map((list) => ({ list, at: after === undefined ? 0 : firstBehind(list, after) }))
  const items: T[] = []
  for (;;) {
    const newest = headOfNewest(heads)
    if (newest === undefined) return { items, hasMore: false }
    if (items.length === limit) return { items, hasMore: true }
    items.push(newest.list[newest.at]!)
    newest.at += 1
  }
}

interface Head<T> {
  readonly list: readonly T[]
  at: number
}

function headOfNewest<T extends Dated>(heads: readonly Head<T>[]): Head<T> | undefined {
  let newest: Head<T> | undefined
  for (const head of heads) {
    const candidate = head.list[head.at]
    if (candidate === undefined) continue
    if (newest === undefined || compareDated(candidate, newest.list[newest.at]!) > 0) newest = head
  }
  return newest
}

/** By halves: the first that is older. */
function firstBehind(list: readonly Dated[], after: Dated): number {
  let [low, high] = [0, list.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (compareDated(list[middle]!, after) < 0) high = middle
    else low = middle + 1
  }
  return low
}

/** Above 0 when `left` is the newer. */
export function compareDated(left: Dated, right: Dated): number {
  for (const name of ['finishedAt', 'system', 'component', 'id'] as const) {
    if (left[name] !== right[name]) return left[name] < right[name] ? -1 : 1
  }
  return 0
}
