import pg from 'pg'

/** Classes of SQLSTATE whose words are PostgreSQL's own, and name relations, blocks and files: of a connection, of what is not supported, of names, of resources, of the system and its damage. */
const SAYING_NO_VALUE = /^(?:08|0A|28|3D|3F|42|53|54|55|57|58|F0|XX)/
/** Data exceptions have values in their words; violations of constraints have names, and values after a colon. */
const VALUES_ANYWHERE = /^22/
const VALUES_AFTER_COLON = /^23/

/** What the server said, as it may be in a record: without values of rows. Whatever a function of the hospital raised is its SQLSTATE alone. */
export function withoutValues(error: Error): string {
  if (!(error instanceof pg.DatabaseError)) return error.message
  const { code = 'unknown', message } = error
  if (SAYING_NO_VALUE.test(code)) return message
  const head = message.replace(/:[^]*$/, '')
  if (VALUES_AFTER_COLON.test(code)) return `${head} (SQLSTATE ${code})`
  if (VALUES_ANYWHERE.test(code)) return `${head.replace(/"[^]*"/g, '"…"')} (SQLSTATE ${code})`
  return `SQLSTATE ${code}`
}
