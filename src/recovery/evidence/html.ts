// Pages that print well, of text that nobody trusts: whatever is put in is escaped.

/** Text that is HTML already. */
export class Markup {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

type Part = string | number | null | Markup | readonly Markup[]

/** Markup with values in it, each escaped. */
export function html(texts: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  return new Markup(texts.map((text, index) => text + (index < parts.length ? shown(parts[index]!) : '')).join(''))
}

function shown(part: Part): string {
  if (part instanceof Markup) return part.text
  if (Array.isArray(part)) return (part as readonly Markup[]).map(({ text }) => text).join('')
  return part === null ? '' : escaped(String(part as string | number))
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
}

const STYLE = `
:root { color-scheme: light; }
body { font: 10pt/1.45 system-ui, sans-serif; color: #111; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 16pt; margin: 0 0 .25rem; } h2 { font-size: 12pt; margin: 1.5rem 0 .5rem; break-after: avoid; }
table { border-collapse: collapse; width: 100%; } tr { break-inside: avoid; } thead { display: table-header-group; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid #ccc; overflow-wrap: break-word; }
td.verified, td.failed, td.unproven { white-space: nowrap; }
th { font-weight: 600; } td.number { text-align: right; white-space: nowrap; }
.verified, .met { color: #064; } .failed, .broken { color: #a00; font-weight: 700; } .unproven { color: #850; font-weight: 600; }
.verdict { font-size: 14pt; } .fine { color: #555; font-size: 8.5pt; } code { font-size: 8.5pt; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; } a { color: inherit; } @page { margin: 15mm; } }
`

/** A whole page. It loads nothing, from nowhere. */
export function page(title: string, body: Markup): string {
  const policy = "default-src 'none'; style-src 'unsafe-inline'"
  const head = html`<meta charset="utf-8" /><meta http-equiv="Content-Security-Policy" content="${policy}" /><title>
      ${title}
    </title>`
  return `<!doctype html>\n<html lang="en">\n<head>${head.text}<style>${STYLE}</style></head>\n<body>${body.text}</body>\n</html>\n`
}

/** The class of a verdict's word. */
export function verdictClass(verdict: string): string {
  if (verdict === 'verified' || verdict === 'met') return 'verified'
  return verdict === 'failed' || verdict === 'broken' || verdict === 'not met' ? 'failed' : 'unproven'
}
