import { stringify } from 'yaml'
import { describeConfiguration } from '../config/configuration.ts'
import { configurationJsonSchema } from '../config/schema.ts'
import { heartbeatSetup } from '../protect/postgres/heartbeat-setup.ts'
import { formatJson } from './output.ts'
import { optionalText, type Verb } from './verb.ts'

export const run: Verb = async (context, given) => {
  if (given.options.schema === true) {
    const schema = configurationJsonSchema()
    return { json: schema, text: formatJson(schema) }
  }
  const role = optionalText(given, 'heartbeat')
  if (role !== undefined) {
    const sql = heartbeatSetup(role)
    return { json: { sql }, text: sql }
  }
  const shown = describeConfiguration(await context.configuration())
  return { json: shown, text: stringify(shown, { lineWidth: 0 }).trimEnd() }
}
