import { z } from 'zod'
import { Failure } from '../errors.ts'
import { ControlPlaneClient, urlOf } from './control-plane-client.ts'
import { forgetSession, readSession } from './kept-session.ts'
import type { Verb } from './verb.ts'

/** Ends the session that `log-on` has begun, or all that the person has anywhere. */
export const run: Verb = async (context, given) => {
  const url = urlOf(given)
  // What cannot be used is removed all the same.
  const kept = await readSession(url).catch(() => undefined)
  if (kept === undefined) {
    await forgetSession(url)
    return { json: { url, ended: false }, text: `nobody is logged on at ${url}` }
  }
  const client = ControlPlaneClient.logOn(url, context.signal)
  const what = given.options.everywhere === true ? 'log-off-everywhere' : 'log-off'
  try {
    await client.ask(`POST /auth/${what}`, z.undefined())
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'UNAUTHENTICATED') throw error
  } finally {
    // Nobody has its secret any more, whether or not the control plane could be told.
    await forgetSession(url)
  }
  return { json: { url, ended: true }, text: `the session at ${url} has ended` }
}
