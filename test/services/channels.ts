import { randomBytes } from 'node:crypto'
import type { z } from 'zod'
import { channelsSchema, resolveChannels, type Channel } from '../../src/incident/channel.ts'

/** Channels as a configuration file names them. */
export function testChannels(settings: z.input<typeof channelsSchema>): Channel[] {
  return resolveChannels(channelsSchema.parse(settings), '/nowhere')
}

/** A secret where a configuration can refer to it: gives the reference. */
export function testSecret(value: string): string {
  const name = `RESUS_TEST_${randomBytes(6).toString('hex')}`
  process.env[name] = value
  return `env:${name}`
}
