import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import test from 'node:test'
import type { TreeEntry } from '../../repository/tree.ts'
import {
  linkTablespaces,
  parseTablespaceMapping,
  placeTablespaces,
  rewriteTablespaceMap,
  type TablespaceMapping,
} from './tablespace-map.ts'

const SCANS = { oid: '16385', path: '/srv/scans' }
const LABS = { oid: '16386', path: '/srv/labs=old' }

function place(mappings: readonly TablespaceMapping[], directory = '/restored/data') {
  return placeTablespaces({ tablespaces: [SCANS, LABS], mappings, directory })
}

test('a mapping is OLD=NEW, with an equals sign in OLD escaped', () => {
  assert.deepEqual(parseTablespaceMapping('16385=/new'), { old: '16385', new: '/new' })
  assert.deepEqual(parseTablespaceMapping(String.raw`/srv/labs\=old=/a=b`), { old: '/srv/labs=old', new: '/a=b' })
  for (const text of ['', '=', '16385', '16385=', '=/new', String.raw`16385\=/new`]) {
    assert.throws(() => parseTablespaceMapping(text), { code: 'ARGUMENTS_INVALID' }, text)
  }
})

test('a tablespace is mapped by its oid or its path, and stays where it was without a mapping', () => {
  const byBoth = place([
    { old: '16385', new: '/new/scans/' },
    { old: '/srv/labs=old/', new: '/new/labs' },
  ])
  assert.deepEqual(
    byBoth.map(({ path }) => path),
    ['/new/scans', '/new/labs'],
  )
  assert.deepEqual(
    place([{ old: '16386', new: '/new/labs' }]).map(({ source, path }) => [source, path]),
    [
      ['/srv/scans', '/srv/scans'],
      ['/srv/labs=old', '/new/labs'],
    ],
  )
})

test('places that would share files, or are none, are refused by name', () => {
  const refused: [TablespaceMapping[], RegExp][] = [
    [[{ old: '16385', new: 'relative' }], /"relative", which is no absolute path/],
    [[{ old: '99999', new: '/new' }], /no tablespace "99999": it has 16385 \("\/srv\/scans"\), 16386/],
    [[{ old: '16385', new: '/srv/labs=old' }], /they would share files/],
    [[{ old: '16385', new: '/srv/labs=old/inside' }], /they would share files/],
    [[{ old: '16385', new: '/srv' }], /they would share files/],
    [[{ old: '16385', new: '/restored/data' }], /in the restored data directory/],
    [[{ old: '16385', new: '/restored/data/pg_tblspc/x' }], /in the restored data directory/],
    [[{ old: '16385', new: '/restored' }], /which the restored data directory "\/restored\/data" is in/],
    [
      [
        { old: '16385', new: '/new/a' },
        { old: '/srv/scans', new: '/new/b' },
      ],
      /mapped 2 times/,
    ],
  ]
  for (const [mappings, message] of refused) {
    assert.throws(() => place(mappings), { code: 'ARGUMENTS_INVALID', message }, JSON.stringify(mappings))
  }
  // A name that only begins alike is another directory.
  assert.equal(place([{ old: '16385', new: '/restored/data-scans' }])[0]!.path, '/restored/data-scans')
})

test('the tablespace map is rewritten, with the escapes that PostgreSQL reads', () => {
  const text = '16385 /srv/scans\n16386 /srv/labs=old\n'
  assert.equal(rewriteTablespaceMap(text, place([])), text)
  const places = place([{ old: '16386', new: '/odd\\name\nhere' }])
  assert.equal(rewriteTablespaceMap(text, places), '16385 /srv/scans\n16386 /odd\\\\name\\\nhere\n')
  // What was escaped by the server stays as it was.
  const odd = '16385 /srv/sc\\\\ans\\\n2\n16386 /srv/labs=old\n'
  const moved = [
    { oid: '16385', source: '/srv/sc\\ans\n2', path: '/new' },
    { oid: '16386', source: '/srv/labs=old', path: '/srv/labs=old' },
  ]
  assert.equal(rewriteTablespaceMap(odd, moved), '16385 /new\n16386 /srv/labs=old\n')
  const kept = [
    { oid: '16385', source: '/srv/sc\\ans\n2', path: '/srv/sc\\ans\n2' },
    { oid: '16386', source: '/srv/labs=old', path: '/new' },
  ]
  assert.equal(rewriteTablespaceMap(odd, kept), '16385 /srv/sc\\\\ans\\\n2\n16386 /new\n')
})

test('links of tablespaces lead to their new places, and any other link is refused', async () => {
  const link = (path: string): TreeEntry => ({ kind: 'link', path, target: '/etc', mode: 0o777, uid: 0, gid: 0 })
  const follow = async (...entries: TreeEntry[]) => {
    const found: TreeEntry[] = []
    const places = [{ oid: '16385', source: '/data/scans', path: '/new/scans' }]
    for await (const entry of linkTablespaces(Readable.from(entries) as AsyncIterable<TreeEntry>, places)) found.push(entry)
    return found
  }
  const directory: TreeEntry = { kind: 'directory', path: 'pg_tblspc', mode: 0o700, uid: 0, gid: 0 }
  const [same, linked] = await follow(directory, link('pg_tblspc/16385'))
  assert.deepEqual(same, directory)
  assert.deepEqual(linked, { ...link('pg_tblspc/16385'), target: '/new/scans' })
  for (const path of ['pg_tblspc/16386', 'global', 'base/5/1259']) {
    await assert.rejects(follow(directory, link(path)), { code: 'OBJECT_DAMAGED', message: new RegExp(path) })
  }
})
