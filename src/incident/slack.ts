import { resolveSecret } from '../config/secret-reference.ts'
import { readAuthorities } from './authorities.ts'
import type { SlackChannel } from './channel.ts'
import { bodyOf, subjectOf, type Message } from './message.ts'
import { callOut } from './outgoing.ts'
import { requireTaken } from './webhook.ts'

const TEXT_CHARACTERS = 12_000
/** Stands between characters that would otherwise have a meaning, and is not seen. */
const BREAK = '\u200b'

/** Gives "HTTP 200". Throws SECRET_UNREADABLE, what `callOut` throws, and what `requireTaken` throws. */
export async function postSlack(channel: SlackChannel, message: Message, signal: AbortSignal): Promise<string> {
  const url = await resolveSecret(channel.url, `the address of the channel "${channel.name}"`)
  const text = chatText(`${subjectOf(message)}\n${bodyOf(message)}`)
  const status = await callOut({
    url: url.reveal().toString('utf8'),
    method: 'POST',
    headers: { 'content-type': 'application/json', 'user-agent': 'Resus' },
    body: JSON.stringify({ text: text.slice(0, TEXT_CHARACTERS).toWellFormed(), unfurl_links: false, unfurl_media: false }),
    allowPrivate: channel.allowPrivate,
    ...(channel.ca === undefined ? {} : { ca: await readAuthorities(channel.ca) }),
    signal,
  })
  return requireTaken(status)
}

/** Text that mentions nobody and links to nothing: names and error messages in it come from outside. Also for those that speak Markdown (Mattermost). */
export function chatText(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replace(/@(?=\S)/g, `@${BREAK}`)
    .replaceAll('://', `:${BREAK}//`)
    .replace(/\bwww\./gi, (found) => `${found.slice(0, -1)}${BREAK}.`)
    .replaceAll('](', `]${BREAK}(`)
}
