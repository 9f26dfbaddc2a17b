import assert from 'node:assert/strict'
import { dirname } from 'node:path'
import { test } from 'node:test'
import { expandAuthentication } from './authentication-text.ts'
import { expandConfiguration, findSetting, type ConfigurationFiles } from './configuration-text.ts'

function filesOf(texts: Readonly<Record<string, string>>): ConfigurationFiles {
  return {
    readFile: (path) => texts[path],
    listDirectory: (directory) => {
      const names = Object.keys(texts).filter((path) => dirname(path) === directory)
      return names.length === 0 ? undefined : names.map((path) => path.slice(directory.length + 1))
    },
  }
}

/** The lines that count, without what Resus writes. */
function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('# Resus:'))
}

test('includes of postgresql.conf are put where they stood, whatever way they are written', () => {
  const { text, isPlaced, problems } = expandConfiguration(
    filesOf({
      '/e/main.conf':
        "a = 1\ninclude 'sub/one.conf'\nInclude_Dir= 'conf.d'\ninclude_if_exists '/nowhere.conf'\nb = 2 # include 'x'",
      '/e/sub/one.conf': `one = 1\ninclude '../it''s\\040here.conf'\ninclude plain`,
      "/e/it's here.conf": "quoted = 'include ''no'''\n",
      '/e/sub/plain': "plain = on\n\tinclude'/abs/two.conf'\n",
      '/abs/two.conf': 'two = 2\r\n',
      '/e/conf.d/10.conf': 'ten = 10',
      '/e/conf.d/9.conf': 'nine = 9',
      '/e/conf.d/.hidden.conf': 'hidden = 1',
      '/e/conf.d/10.conf.bak': 'backup = 1',
    }),
    '/e/main.conf',
  )
  const expected = [
    'a = 1',
    'one = 1',
    "quoted = 'include ''no'''",
    'plain = on',
    'two = 2\r',
    'ten = 10',
    'nine = 9',
    "b = 2 # include 'x'",
  ]
  assert.deepEqual(linesOf(text), expected)
  assert.equal(isPlaced, true)
  assert.deepEqual(problems, [])
})

test('settings that name places are commented out, and nothing else is touched', () => {
  const main =
    "DATA_directory '/old'\n hba_file=/old/hba\nident_file_not = 1\nexternal_pid_file = '/run/x.pid'\n# hba_file = 'y'\nlatin = '\u00e9'"
  const { text, isPlaced } = expandConfiguration(filesOf({ '/c': main }), '/c')
  assert.deepEqual(linesOf(text), ['ident_file_not = 1', "# hba_file = 'y'", "latin = '\u00e9'"])
  assert.equal(isPlaced, true)
  assert.equal(expandConfiguration(filesOf({ '/c': "a=1\ninclude 'd'\n", '/d': 'b=2\n' }), '/c').isPlaced, false)
})

test('the last line about a setting gives its value', () => {
  const text = "a = 'one'\nA = 'it''s two' # a = 3\n# a = 4\nb = on\n"
  assert.equal(findSetting(text, 'a'), "it's two")
  assert.equal(findSetting(text, 'b'), 'on')
  assert.equal(findSetting(text, 'c'), undefined)
})

test('circles, depths and missing files are problems by name; a flood of files is refused', () => {
  const circle = expandConfiguration(filesOf({ '/a': "include 'b'\nx = 1\n", '/b': "include 'a'\ny = 2\n" }), '/a')
  assert.deepEqual(linesOf(circle.text), ['y = 2', 'x = 1'])
  assert.deepEqual(circle.problems, [{ path: '/b', problem: '"/a" includes itself' }])

  const deep = Object.fromEntries(Array.from({ length: 14 }, (_, at) => [`/${at}`, `include '${at + 1}'\nlevel${at} = 1\n`]))
  const found = expandConfiguration(filesOf(deep), '/0')
  assert.deepEqual(found.problems, [{ path: '/10', problem: '"/11" is included more than 10 files deep' }])

  const missing = expandConfiguration(filesOf({ '/a': "include 'gone'\ninclude_dir 'gone.d'\nx = 1" }), '/a')
  assert.deepEqual(linesOf(missing.text), ['x = 1'])
  assert.deepEqual(missing.problems, [
    { path: '/a', problem: '"/gone" is not there' },
    { path: '/a', problem: 'the directory "/gone.d" is not there' },
  ])

  const flood = Object.fromEntries(Array.from({ length: 1001 }, (_, at) => [`/d/${at}.conf`, 'a = 1\n']))
  assert.throws(() => expandConfiguration(filesOf({ '/a': "include_dir 'd'", ...flood }), '/a'), {
    code: 'CONFIGURATION_UNREADABLE',
    message: /more than 1000 files; the limit was reached at "\/d\//,
  })
})

test('files of names are put in the place of @file, and a missing one loses no field', () => {
  const files = filesOf({
    '/h/pg_hba.conf': [
      '# host all @nobody all trust',
      'host all @admins,"@literal",carol 10.0.0.0/8 scram-sha-256 # @admins',
      'host "a b" @"with space" all \\',
      '  md5',
      'host all @gone all reject',
      'host all @empty all reject',
    ].join('\n'),
    '/h/admins': 'alice, "Bob ""B"""\n# nobody\n+group @/else/more\n',
    '/else/more': 'dave\n',
    '/h/with space': 'erin',
    '/h/empty': '# none\n',
  })
  const { text, isPlaced, problems } = expandAuthentication(files, '/h/pg_hba.conf', { major: 15 })
  assert.deepEqual(linesOf(text), [
    '# host all @nobody all trust',
    'host all alice,"Bob ""B""",+group,dave,"@literal",carol 10.0.0.0/8 scram-sha-256 # @admins',
    'host "a b" erin all   md5',
    'host all "@gone" all reject',
    'host all "@empty" all reject',
  ])
  assert.equal(isPlaced, true)
  assert.deepEqual(problems, [{ path: '/h/pg_hba.conf', problem: '"/h/gone" is not there' }])
})

test('pg_hba.conf includes others from PostgreSQL 16 on', () => {
  const files = filesOf({
    '/h/pg_hba.conf': 'include d/one\ninclude_if_exists none\ninclude_dir \\\n d\nlocal all all trust\n',
    '/h/d/one': 'local one @names peer',
    '/h/d/names': 'x,y',
    '/h/d/two.conf': 'local two all peer\n',
  })
  const { text } = expandAuthentication(files, '/h/pg_hba.conf', { major: 16 })
  assert.deepEqual(linesOf(text), ['local one x,y peer', 'local two all peer', 'local all all trust'])
  const old = expandAuthentication(files, '/h/pg_hba.conf', { major: 15 })
  assert.match(old.text, /^include d\/one$/m)
})
