import { hash } from 'node:crypto'
import { documentResource, instant, type Setting } from './clinical-resources.ts'
import { DOCUMENT_TYPES, LABORATORY_TESTS, type DocumentType, type TestName } from './codes.ts'
import { write, type Episode } from './episode.ts'
import type { Visit } from './visit.ts'

/** A document of a visit, with its file. */
export function writeDocument(
  episode: Episode,
  given: Visit,
  about: { readonly setting: Setting; readonly type: DocumentType; readonly tests: readonly TestName[] },
): void {
  const { facility, endMs } = given
  const atMs = endMs + 10 * 60_000
  const id = episode.random.uuid(atMs)
  const content = contentOf(given, { ...about, id })
  const sha256 = hash('sha256', content, 'hex')
  const sha1 = hash('sha1', content, 'base64')
  write(episode, {
    atMs,
    type: 'DocumentFiled',
    resource: documentResource(about.setting, { id, type: about.type, atMs, sha256, sha1, sizeBytes: content.length }),
    facility,
    by: 'clinician',
    file: { content, sha256 },
  })
}

function contentOf(
  { facility, condition, person, startMs, endMs }: Visit,
  { id, type, tests }: { readonly id: string; readonly type: DocumentType; readonly tests: readonly TestName[] },
): Buffer {
  const { display, contentType } = DOCUMENT_TYPES[type]
  const lines = [
    `${display} ${id}`,
    facility.name,
    `${person.family}, ${person.given.join(' ')}, born ${person.birthDate}`,
    `From ${instant(startMs)} to ${instant(endMs)}`,
    `${condition.code} ${condition.display}`,
    ...tests.map((name) => `Measured: ${LABORATORY_TESTS[name].display}`),
  ]
  return contentType === 'application/pdf' ? pdf(lines) : Buffer.from(`${lines.join('\n')}\n`)
}

const FIRST_LINE_Y = 800
const LINE_HEIGHT = 16

/** One page of text as a PDF (ISO 32000-1), as small as one can be: objects, where each begins, and where that list is. */
export function pdf(lines: readonly string[]): Buffer {
  const text = lines
    .map((line, index) => `1 0 0 1 40 ${FIRST_LINE_Y - index * LINE_HEIGHT} Tm (${escapePdf(line)}) Tj`)
    .join('\n')
  const drawing = `BT /F1 11 Tf\n${text}\nET`
  const objects = [
    '<< /Type /Catalog /Pages 2 0 R >>',
    '<< /Type /Pages /Kids [3 0 R] /Count 1 >>',
    '<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>',
    `<< /Length ${drawing.length} >>\nstream\n${drawing}\nendstream`,
    '<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>',
  ]
  let file = '%PDF-1.4\n'
  const offsets = objects.map((object, index) => {
    const offset = file.length
    file += `${index + 1} 0 obj\n${object}\nendobj\n`
    return offset
  })
  const table = offsets.map((offset) => `${String(offset).padStart(10, '0')} 00000 n \n`).join('')
  const size = objects.length + 1
  const trailer = `trailer\n<< /Size ${size} /Root 1 0 R >>\nstartxref\n${file.length}\n%%EOF\n`
  return Buffer.from(`${file}xref\n0 ${size}\n0000000000 65535 f \n${table}${trailer}`, 'latin1')
}

/** Helvetica has no tone marks and dots below: those letters lose them. */
function escapePdf(text: string): string {
  return text
    .normalize('NFD')
    .replaceAll(/[^\x20-\x7e]/g, '')
    .replaceAll(/[\\()]/g, (each) => `\\${each}`)
}
