import type { StoredRecord } from './chain.ts'
import { html, page, verdictClass, type Markup } from './html.ts'
import type { Measured, RunPredicate, Timeline } from './record.ts'

// One record as a page to be read, printed and signed by hand.

const INSTANTS: readonly (readonly [keyof Timeline, string])[] = [
  ['fault', 'fault'],
  ['detected', 'detected'],
  ['declared', 'declared'],
  ['approved', 'approved'],
  ['began', 'recovery begun'],
  ['dataReady', 'data ready'],
  ['dataVerified', 'data verified'],
  ['serviceUp', 'service up'],
  ['firstVerifiedTransaction', 'first verified transaction'],
  ['tornDown', 'scratch place removed'],
]

/** Of the RTO, one behind the other. */
const PARTS: readonly string[] = ['restore', 'recovery', 'checks', 'first transaction']

/** HTML of one record. What counts is what was signed; this says so. */
export function recordPage(record: StoredRecord): string {
  const { predicate } = record
  const title = `Evidence ${record.sequence} of "${predicate.system}": ${predicate.kind}`
  const body = predicate.kind === 'drill' || predicate.kind === 'recovery' ? runBody(predicate) : otherBody(record)
  return page(
    title,
    html`<h1>${title}</h1>
      ${body}${signedPart(record)}`,
  )
}

function runBody(run: RunPredicate): Markup {
  const point = run.recoveryPoint
  return html`<p class="verdict ${verdictClass(run.verdict)}">${run.verdict}: ${run.why}</p>
    ${fields([
      ['Component', run.component],
      ['Facilities', run.facilities.length === 0 ? 'all of the system' : run.facilities.join(', ')],
      ['Started by', `${run.startedBy}, on ${run.node}`],
      ['Valid until', run.expires],
      ['Recovery point', `${point.target}, from backup ${point.backup}${point.turn === null ? '' : ` (in turn: ${point.turn})`}`],
      ['Reached', point.lsn === null ? 'not reached' : `${point.lsn} on timeline ${String(point.timeline)}`],
      ['Newest heartbeat in it', point.heartbeat ?? 'none'],
      [
        'Software',
        `Resus ${run.software.resus}, PostgreSQL ${run.software.postgres ?? 'unknown'}, Node ${run.software.node}, ${run.software.system}`,
      ],
    ])}
    <h2>Objectives and what was measured</h2>
    ${measuredTable(run)}
    <h2>Timeline${run.timeline.simulated ? ' (the fault is simulated: it is the beginning of the drill)' : ''}</h2>
    ${fields(INSTANTS.flatMap(([key, name]) => (typeof run.timeline[key] === 'string' ? [[name, run.timeline[key]] as const] : [])))}
    <h2>Checks</h2>
    <table>
      <thead>
        <tr>
          <th>check</th>
          <th>verdict</th>
          <th>expected</th>
          <th>found</th>
          <th>s</th>
        </tr>
      </thead>
      <tbody>
        ${run.checks.map(
          (each) =>
            html`<tr>
              <td>${each.name}</td>
              <td class="${verdictClass(each.verdict)}">${each.verdict}</td>
              <td>${each.expected}</td>
              <td>${each.found}</td>
              <td class="number">${each.seconds.toFixed(1)}</td>
            </tr>`,
        )}
      </tbody>
    </table>
    <h2>Not tested</h2>
    ${list(run.notTested)}
    <h2>How the copy was kept apart</h2>
    ${list(run.isolation.map(({ what, holds, why }) => `${what}: ${holds === null ? 'not known' : holds ? 'yes' : 'NO'}; ${why}`))}
    <h2>Leftovers</h2>
    <p>
      ${run.leftovers.removed === null ? 'Not known' : run.leftovers.removed ? 'Removed' : 'NOT removed'}: ${run.leftovers.seen}
    </p>
    <h2>Certification</h2>
    <table>
      <tbody>
        <tr>
          <th>Reviewed by</th>
          <td></td>
          <th>Date</th>
          <td></td>
        </tr>
        <tr>
          <th>Decision</th>
          <td></td>
          <th>Signature</th>
          <td></td>
        </tr>
      </tbody>
    </table>`
}

function measuredTable({ objectives, measured }: RunPredicate): Markup {
  const rows: (readonly [string, string, string])[] = [
    ['RTO', target(objectives.rtoMinutes), figure(measured, 'rtoSeconds', (value) => `${value.toFixed(1)} s`)],
    ['RPO', target(objectives.rpoMinutes), figure(measured, 'rpoSeconds', (value) => `${value.toFixed(1)} s`)],
    ['Restored', '', figure(measured, 'bytesRestored', (value) => `${(value / 1e6).toFixed(1)} MB`)],
    ['Restore rate', '', figure(measured, 'restoreBytesPerSecond', (value) => `${(value / 1e6).toFixed(1)} MB/s`)],
    ['WAL replayed', '', figure(measured, 'walBytesReplayed', (value) => `${(value / 1e6).toFixed(1)} MB`)],
    ['Replay rate', '', figure(measured, 'replayBytesPerSecond', (value) => `${(value / 1e6).toFixed(1)} MB/s`)],
    ['Acknowledged writes lost', '', figure(measured, 'acknowledgedLost', String)],
    ...inOrder(measured.rtoParts).map(([part, value]) => [`RTO: ${part}`, '', `${value.toFixed(1)} s`] as const),
  ]
  return html`<table>
    <thead>
      <tr>
        <th></th>
        <th>objective</th>
        <th>measured</th>
      </tr>
    </thead>
    <tbody>
      ${rows.map(
        ([name, wanted, found]) =>
          html`<tr>
            <th>${name}</th>
            <td>${wanted}</td>
            <td>${found}</td>
          </tr>`,
      )}
    </tbody>
  </table>`
}

/** Signed members are in the order of the alphabet. */
function inOrder(parts: Measured['rtoParts']): [string, number][] {
  const place = (name: string) => (PARTS.includes(name) ? PARTS.indexOf(name) : PARTS.length)
  return Object.entries(parts).toSorted(([left], [right]) => place(left) - place(right))
}

function figure(
  measured: Measured,
  name: Exclude<keyof Measured, 'why' | 'rtoParts'>,
  format: (value: number) => string,
): string {
  const value = measured[name]
  return value === null ? `not measured: ${measured.why[name] ?? 'not known'}` : format(value)
}

function target(objective: RunPredicate['objectives']['rtoMinutes']): string {
  return objective === null ? 'none is set' : `${objective.value} minutes (${objective.from})`
}

function otherBody({ predicate }: StoredRecord): Markup {
  switch (predicate.kind) {
    case 'certification':
      return fields([
        ['Record', String(predicate.of.sequence)],
        ['Decision', predicate.decision],
        ['By', predicate.by],
        ['Text', predicate.text],
      ])
    case 'deviation':
      return fields([
        ['Record', String(predicate.of.sequence)],
        ['Severity', predicate.severity],
        ['By', predicate.by],
        ['Text', predicate.text],
      ])
    case 'action':
      return fields([
        ['Action', predicate.action],
        ['Record', String(predicate.of.sequence)],
        ['State', predicate.state],
        ['Owner', predicate.owner],
        ['Due', predicate.due],
        ['By', predicate.by],
        ['Text', predicate.text],
      ])
    case 'key':
      return fields([['The next records are signed by', predicate.fingerprint]])
    case 'drill':
    case 'recovery':
      return html``
    default:
      return predicate satisfies never
  }
}

function signedPart({ predicate, digest, envelope }: StoredRecord): Markup {
  return html`<h2>Signature</h2>
    ${fields([
      ['Made at', predicate.madeAt],
      ['SHA-256 of what was signed', digest],
      ['Of the record before it', predicate.previous ?? 'none: this is the first'],
      ['Signed by the key', envelope.signatures[0]!.keyid],
    ])}
    <p class="fine">
      This page is for reading. What was signed is the record itself (an in-toto statement in a DSSE envelope): "resus evidence
      verify", or the README of a bundle, says how to check it.
    </p>`
}

function fields(rows: readonly (readonly [string, string])[]): Markup {
  return html`<table>
    <tbody>
      ${rows.map(
        ([name, value]) =>
          html`<tr>
            <th>${name}</th>
            <td>${value}</td>
          </tr>`,
      )}
    </tbody>
  </table>`
}

function list(lines: readonly string[]): Markup {
  return lines.length === 0
    ? html`<p>nothing</p>`
    : html`<ul>
        ${lines.map((line) => html`<li>${line}</li>`)}
      </ul>`
}
