/**
 * What somebody else has written, for a terminal: characters that command it, are not seen, or turn the order of what is read are shown as what they are. Whoever asks for a decision must not choose
 * what the one who decides gets to see.
 */
export function plainText(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (each) => `\\u{${(each.codePointAt(0) ?? 0).toString(16)}}`)
}

/** Of several lines, each: breaks between them are ours. */
export function plainLines(text: string): string {
  return text.split('\n').map(plainText).join('\n')
}

/** A document in full, indented. */
export function plainJson(document: unknown): string {
  // What JSON leaves as a line break is its own.
  return plainLines(JSON.stringify(document, null, 2))
}
