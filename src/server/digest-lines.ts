import { objectiveNames } from '../recovery/objectives.ts'
import type { Catalogue } from './catalogue.ts'
import { componentKey } from './component-key.ts'
import type { EvidenceBook } from './evidence-book.ts'
import type { ObjectivesWatch } from './objectives-watch.ts'
import type { StatusBoard } from './status-board.ts'

const HOUR_SECONDS = 3600

/** The daily digest: a line for each component, the worst first, and nothing that was not measured. */
export function digestLines(board: StatusBoard, objectives: ObjectivesWatch): string[] {
  const views = new Map(objectives.views().map((view) => [componentKey(view.system, view.component), view]))
  const lines = board.backupStatus().components.map((each) => {
    const judgements = views.get(componentKey(each.system, each.component))?.judgements
    const broken = objectiveNames.filter((name) => judgements?.[name]?.verdict === 'broken')
    const age =
      each.newestBackup === null ? 'no backup' : `newest backup ${(each.newestBackup.ageSeconds / HOUR_SECONDS).toFixed(1)} h old`
    const parts = [age, `${each.verdict} by a restore`, `receiver ${each.receiver.state}`]
    if (broken.length > 0) parts.push(`BROKEN: ${broken.join(', ')}`)
    if (each.reachedBy.length === 0) parts.push('REACHED BY NO NODE')
    const rank =
      broken.length > 0 || each.reachedBy.length === 0 || each.newestBackup === null ? 0 : each.verdict === 'verified' ? 2 : 1
    return { rank, text: `${each.system}/${each.component} (${each.tier}): ${parts.join('; ')}` }
  })
  return lines.toSorted((left, right) => left.rank - right.rank).map(({ text }) => text)
}

/** How many records each system's evidence has, and the digest of the last: kept outside, it shows what is cut off later. */
export function evidenceLines(catalogue: Catalogue, evidence: EvidenceBook): string[] {
  return catalogue.systems.flatMap(({ system }) => {
    const head = evidence.head(system)
    return head === undefined ? [] : [`evidence of ${system}: ${head.count} records, the last is sha256:${head.digest}`]
  })
}
