// Which requirements of which framework the records prove (docs/evidence.md, "Controls"). Data, and what judges it: pure.

/** What a requirement asks for. Of `withinDays` the end of the period counts. */
type Need =
  /** Each component has a verified drill or recovery. */
  | { readonly kind: 'verified'; readonly withinDays: number }
  /** Management has accepted at least one of each component's runs. */
  | { readonly kind: 'certified'; readonly withinDays: number }
  /** The last verified run of each component met its objective. */
  | { readonly kind: 'rto' | 'rpo' }
  /** Each record names tier and objectives. */
  | { readonly kind: 'objectives' }
  /** No corrective action is overdue. */
  | { readonly kind: 'actions' }
  /** No record shows it. */
  | { readonly kind: 'not measured'; readonly why: string }

export interface Control {
  readonly framework: string
  readonly id: string
  readonly title: string
  readonly needs: readonly Need[]
}

const QUARTER = 92
const YEAR = 366

export const CONTROLS: readonly Control[] = [
  {
    framework: 'HIPAA Security Rule',
    id: '164.308(a)(7)(ii)(A)',
    title: 'Data backup plan: retrievable exact copies',
    needs: [{ kind: 'verified', withinDays: QUARTER }],
  },
  {
    framework: 'HIPAA Security Rule',
    id: '164.308(a)(7)(ii)(B)',
    title: 'Disaster recovery plan: lost data is restored',
    needs: [
      { kind: 'verified', withinDays: QUARTER },
      { kind: 'not measured', why: 'the written plan (playbooks) is not among the records' },
    ],
  },
  {
    framework: 'HIPAA Security Rule',
    id: '164.308(a)(7)(ii)(C)',
    title: 'Emergency mode operation plan',
    needs: [{ kind: 'not measured', why: 'how the hospital works while systems are down is not among the records' }],
  },
  {
    framework: 'HIPAA Security Rule',
    id: '164.308(a)(7)(ii)(D)',
    title: 'Testing and revision: tests are documented, reviewed, and lead to corrections',
    needs: [{ kind: 'verified', withinDays: QUARTER }, { kind: 'certified', withinDays: YEAR }, { kind: 'actions' }],
  },
  {
    framework: 'HIPAA Security Rule',
    id: '164.308(a)(7)(ii)(E)',
    title: 'Applications and data criticality analysis',
    needs: [{ kind: 'objectives' }],
  },
  {
    framework: 'HIPAA Security Rule',
    id: '164.312(a)(2)(ii)',
    title: 'Emergency access procedure',
    needs: [{ kind: 'not measured', why: 'the use of a sealed code is in the audit trail, and not among the records' }],
  },
  {
    framework: 'HIPAA Security Rule',
    id: '164.316(b)(2)(i)',
    title: 'Documentation is retained for six years',
    needs: [{ kind: 'not measured', why: 'records are kept outside any retention; that nobody can delete them is not proven' }],
  },
  {
    framework: 'SOC 2',
    id: 'A1.2',
    title: 'Backup processes and recovery infrastructure',
    needs: [{ kind: 'verified', withinDays: QUARTER }],
  },
  {
    framework: 'SOC 2',
    id: 'A1.3',
    title: 'Recovery plan procedures are tested',
    needs: [{ kind: 'verified', withinDays: YEAR }, { kind: 'rto' }, { kind: 'certified', withinDays: YEAR }],
  },
  {
    framework: 'ISO/IEC 27001:2022',
    id: 'A.8.13',
    title: 'Information backup: copies are tested regularly',
    needs: [{ kind: 'verified', withinDays: QUARTER }],
  },
  {
    framework: 'ISO/IEC 27001:2022',
    id: 'A.5.30',
    title: 'ICT readiness for business continuity',
    needs: [{ kind: 'objectives' }, { kind: 'verified', withinDays: YEAR }, { kind: 'rto' }, { kind: 'rpo' }],
  },
  {
    framework: 'ISO 22301:2019',
    id: '8.5',
    title: 'Exercise programme: at planned intervals, reported, acted upon',
    needs: [{ kind: 'verified', withinDays: YEAR }, { kind: 'certified', withinDays: YEAR }, { kind: 'actions' }],
  },
  {
    framework: 'NIST CSF 2.0',
    id: 'RC.RP-03',
    title: 'The integrity of backups is verified before they are used',
    needs: [{ kind: 'verified', withinDays: 7 }],
  },
  {
    framework: 'NIST CSF 2.0',
    id: 'RC.RP-05',
    title: 'The integrity of restored assets is verified, and normal operation confirmed',
    needs: [{ kind: 'verified', withinDays: QUARTER }, { kind: 'rto' }],
  },
  {
    framework: 'NIST SP 800-34 Rev. 1',
    id: '3.5',
    title: 'Plan testing, training and exercises',
    needs: [
      { kind: 'verified', withinDays: YEAR },
      { kind: 'not measured', why: 'training of people is not among the records' },
    ],
  },
  {
    framework: 'Nigeria Data Protection Act 2023',
    id: 'section 39',
    title: 'Availability is restored in time, and measures are tested regularly',
    needs: [{ kind: 'verified', withinDays: QUARTER }, { kind: 'rto' }],
  },
]

/** What of a drill or recovery is needed. */
export interface ControlRun {
  readonly sequence: number
  readonly component: string
  readonly madeAt: string
  readonly verdict: 'verified' | 'failed' | 'not proven'
  /** Whether it went to the newest moment: only then do its times say what a recovery would take and lose. */
  readonly isLatest: boolean
  readonly rtoSeconds: number | null
  readonly rpoSeconds: number | null
  readonly rtoMinutes: number | null
  readonly rpoMinutes: number | null
}

export interface ControlFacts {
  /** All that has to be recoverable; those without any record too. */
  readonly components: readonly string[]
  /** Of the period, in any order. */
  readonly runs: readonly ControlRun[]
  /** Records that management accepted, with or without deviations. */
  readonly accepted: ReadonlySet<number>
  readonly overdueActions: number
  readonly nowMs: number
}

export interface JudgedControl extends Omit<Control, 'needs'> {
  readonly state: 'met' | 'not met' | 'not measured'
  /** Of what is met: the records; else the first thing that is missing. */
  readonly why: string
  readonly records: readonly number[]
}

/** Judges all controls. One without a component to judge is not met: nothing was proven. */
export function judgeControls(facts: ControlFacts): JudgedControl[] {
  return CONTROLS.map(({ needs, ...control }) => {
    const judged = needs.map((need) => judgeNeed(need, facts))
    const missing = judged.find(({ state }) => state === 'not met') ?? judged.find(({ state }) => state === 'not measured')
    const records = [...new Set(judged.flatMap((each) => each.records))].toSorted((left, right) => left - right)
    if (missing !== undefined) return { ...control, state: missing.state, why: missing.why, records }
    return {
      ...control,
      state: 'met',
      why: byRecords(records),
      records,
    }
  })
}

function byRecords(records: readonly number[]): string {
  if (records.length === 0) return 'by each record'
  return records.length === 1 ? `by record ${records[0]}` : `by records ${records.join(', ')}`
}

type Judged = Pick<JudgedControl, 'state' | 'why' | 'records'>

function judgeNeed(need: Need, facts: ControlFacts): Judged {
  switch (need.kind) {
    case 'verified':
    case 'certified':
      return ofEachComponent(facts, (component) => findRun(facts, component, need))
    case 'rto':
    case 'rpo':
      return ofEachComponent(facts, (component) => withinObjective(facts, component, need.kind))
    case 'objectives':
      return ofEachComponent(facts, (component) => {
        const run = facts.runs.find(
          (each) => each.component === component && each.rtoMinutes !== null && each.rpoMinutes !== null,
        )
        return run ?? `no record of "${component}" names its objectives`
      })
    case 'actions': {
      const { overdueActions: count } = facts
      return count === 0
        ? { state: 'met', why: '', records: [] }
        : { state: 'not met', why: `${count} corrective actions are overdue`, records: [] }
    }
    case 'not measured':
      return { state: 'not measured', why: need.why, records: [] }
    default:
      return need satisfies never
  }
}

/** A run that shows it, or what is missing. */
function ofEachComponent(facts: ControlFacts, look: (component: string) => ControlRun | string): Judged {
  if (facts.components.length === 0) return { state: 'not met', why: 'there is no component', records: [] }
  const found = facts.components.map(look)
  const missing = found.filter((each) => typeof each === 'string')
  const records = found.flatMap((each) => (typeof each === 'string' ? [] : [each.sequence]))
  const [first] = missing
  if (first === undefined) return { state: 'met', why: '', records }
  return { state: 'not met', why: missing.length === 1 ? first : `${first} (and ${missing.length - 1} more)`, records }
}

function findRun(facts: ControlFacts, component: string, need: Extract<Need, { withinDays: number }>): ControlRun | string {
  const sinceMs = facts.nowMs - need.withinDays * 24 * 3_600_000
  const runs = facts.runs.filter((each) => each.component === component && Date.parse(each.madeAt) >= sinceMs)
  if (need.kind === 'certified') {
    const accepted = runs.findLast(({ sequence }) => facts.accepted.has(sequence))
    return accepted ?? `management has accepted no record of "${component}" within ${need.withinDays} days`
  }
  return (
    runs.findLast(({ verdict }) => verdict === 'verified') ??
    `nothing of "${component}" was verified within ${need.withinDays} days`
  )
}

function withinObjective(facts: ControlFacts, component: string, kind: 'rto' | 'rpo'): ControlRun | string {
  const measured = kind === 'rto' ? 'rtoSeconds' : 'rpoSeconds'
  const target = kind === 'rto' ? 'rtoMinutes' : 'rpoMinutes'
  const name = kind.toUpperCase()
  const run = facts.runs.findLast((each) => each.component === component && each.isLatest)
  if (run === undefined || run.verdict !== 'verified' || run[measured] === null)
    return `the ${name} of "${component}" was not measured by the last drill of its newest moment`
  const [value, limit] = [run[measured], run[target]]
  if (value === null || limit === null) return `"${component}" has no ${name} to hold it against`
  return value <= limit * 60 ? run : `the ${name} of "${component}" was ${value.toFixed(0)} s, agreed were ${limit * 60} s`
}
