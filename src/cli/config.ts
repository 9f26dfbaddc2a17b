import { stringify } from 'yaml'
import { describeConfiguration } from '../config/configuration.ts'
import { configurationJsonSchema } from '../config/schema.ts'
import { formatJson } from './output.ts'
import type { Verb } from './verb.ts'

export const run: Verb = async (context, given) => {
  if (given.options.schema === true) {
    const schema = configurationJsonSchema()
    return { json: schema, text: formatJson(schema) }
  }
  const shown = describeConfiguration(await context.configuration())
  return { json: shown, text: stringify(shown, { lineWidth: 0 }).trimEnd() }
}
