import { sealedCodeSchema } from '../api/authority-schemas.ts'
import { Failure } from '../errors.ts'
import { ControlPlaneClient } from './control-plane-client.ts'
import { formatTime } from './output.ts'
import type { Verb } from './verb.ts'

/** Makes a sealed code, and prints the sheet that is put away with it. */
export const run: Verb = async (context, given) => {
  const [what] = given.args
  if (what !== 'make') {
    throw new Failure('ARGUMENTS_INVALID', `"${what}" is nothing that can be done with sealed codes`, {
      hint: 'make; "resus restore --break-glass" uses one, "resus emergency list" shows which were used',
    })
  }
  const client = await ControlPlaneClient.ofPerson(given, context.signal)
  const made = await client.ask('POST /break-glass', sealedCodeSchema)
  const { id, digest, askedBy, askedAt, expiresAt } = made.approval
  context.warn(`the code is good once another person has approved it, until ${formatTime(expiresAt)}: "resus approve ${id}"`)
  return { json: made, text: sheetOf({ code: made.code, id, digest, made: `${formatTime(askedAt)}, by ${askedBy}` }) }
}

function sheetOf({ code, id, digest, made }: Readonly<Record<'code' | 'id' | 'digest' | 'made', string>>): string {
  return `BREAK-GLASS: A SEALED CODE OF RESUS

    ${code}

It is shown this once. Print this sheet, seal it in an envelope, sign across the
seal, put it in a safe that two people open together.

What it is for
  A system is down, and nobody can be asked: no second person, no control plane,
  no identity provider. With it one person restores to a new place.
  It deletes nothing, overwrites nothing and changes nobody's rights.

How it is used
  On a host with Resus, the configuration and the repository's passphrase:

    resus restore COMPONENT --to NEW-DIRECTORY --break-glass

  It asks for the code; small letters and left out dashes do not matter.
  From the first use on it is good for four hours, and then never again.

What follows
  Everybody is told as soon as a control plane sees the use. Another person
  reviews it within 72 hours ("resus emergency list"). Make another code then.

Good only when another person has approved it
  request  ${id}
  digest   ${digest.slice(0, 32)}
           ${digest.slice(32)}
  made     ${made}
  approved by (name, date, signature)

           ______________________________________________
`
}
