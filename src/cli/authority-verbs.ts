import type { VerbDefinition } from './verb.ts'

export const URL_OPTION = ['--url <url>', 'its address (default: RESUS_URL, or http://127.0.0.1:7400)'] as const
const GRANT = [
  '--grant <grant>',
  'a role, or a role for some facilities: operator:ila,ede; may be repeated',
  'repeatable',
] as const

/** Verbs of people, at a running control plane: they log on first. */
export const AUTHORITY_VERBS: readonly VerbDefinition[] = [
  {
    name: 'log-on',
    summary: 'log on to a running "resus serve", for the commands that follow; asks for what it needs',
    options: [
      ['--name <name>', 'who (default: asked for)'],
      ['--invitation', 'for the first time, with the code of an invitation: choose a password'],
      ['--first', 'become the first administrator, by the link that "resus serve" has made'],
      ['--link-file <file>', 'with --first: where the link is (default: /var/lib/resus/server/first-administrator)'],
      URL_OPTION,
    ],
    load: () => import('./log-on.ts'),
  },
  {
    name: 'log-off',
    summary: 'end the session of "resus log-on"',
    options: [['--everywhere', 'and all others of this person'], URL_OPTION],
    load: () => import('./log-off.ts'),
  },
  {
    name: 'user',
    summary: 'people: who may do what. Changes take a second person once there is one',
    args: [
      ['<what>', 'list, add, grant, disable, enable, reset or invite'],
      ['[name]', 'whom, by the name to log on with'],
    ],
    options: [
      GRANT,
      ['--none', 'grant: take all grants away'],
      ['--display-name <name>', 'add: as others know them (default: the name to log on with)'],
      ['--email <address>', 'add: where they are told'],
      URL_OPTION,
    ],
    load: () => import('./user.ts'),
  },
  {
    name: 'approve',
    summary: 'what waits for a second person; with an id, all of it, and your decision',
    args: [['[request]', 'id of a request; without it, what waits is listed']],
    options: [
      ['--yes', 'approve without asking whether; a fresh code is asked for all the same'],
      ['--refuse', 'refuse'],
      ['--reason <text>', 'why (default: asked for)'],
      ['--revoke', 'take back what you have asked for yourself'],
      URL_OPTION,
    ],
    load: () => import('./approve.ts'),
  },
  {
    name: 'emergency',
    summary: 'declare one: for four hours restores to new places take one person, and everybody is told; list, review',
    args: [
      ['<what>', 'declare, list or review'],
      ['[id]', 'review: which'],
    ],
    options: [
      ['--reason <text>', 'declare: what has happened'],
      ['--text <text>', 'review: how it was; by another person than who declared it'],
      URL_OPTION,
    ],
    load: () => import('./emergency.ts'),
  },
  {
    name: 'break-glass',
    summary: 'make a sealed code for when nobody can be asked, and print its sheet; another person approves it',
    args: [['<what>', 'make']],
    options: [URL_OPTION],
    load: () => import('./break-glass.ts'),
  },
  {
    name: 'token',
    summary: 'your API tokens, for programs',
    args: [
      ['<what>', 'make, list or revoke'],
      ['[token]', 'make: a name for it; revoke: its id'],
    ],
    options: [
      GRANT,
      ['--days <number>', 'make: how long it is good, 400 at most (default: 90)'],
      ['--to <file>', 'make: a new file that only you can read (default: it is printed)'],
      URL_OPTION,
    ],
    load: () => import('./token.ts'),
  },
]
