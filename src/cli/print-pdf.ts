import { execFile } from 'node:child_process'
import { access, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { Failure } from '../errors.ts'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'] as const
const TIMEOUT_MS = 60_000

/** Prints a page as PDF with the system's Chromium. Throws ARGUMENTS_INVALID where there is none, NOT_VERIFIED when it prints nothing. */
export async function printPdf(html: string, path: string, signal: AbortSignal): Promise<void> {
  const browser = await findBrowser()
  if (browser === undefined) {
    throw new Failure('ARGUMENTS_INVALID', 'there is no Chromium on this machine to make a PDF with', {
      hint: 'install the package "chromium", or write the page with --html and print it elsewhere',
    })
  }
  const directory = await mkdtemp(join(tmpdir(), 'resus-pdf-'))
  try {
    const page = join(directory, 'page.html')
    await writeFile(page, html, { mode: 0o600 })
    const args = [
      '--headless',
      '--disable-gpu',
      '--no-first-run',
      // What is printed is our own page, which loads nothing; as root Chromium has no sandbox.
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
      `--user-data-dir=${join(directory, 'profile')}`,
      '--no-pdf-header-footer',
      `--print-to-pdf=${resolve(path)}`,
      `file://${page}`,
    ]
    await promisify(execFile)(browser, args, { timeout: TIMEOUT_MS, signal }).catch((error: unknown) => {
      signal.throwIfAborted()
      throw new Failure('NOT_VERIFIED', `"${browser}" made no PDF: ${error instanceof Error ? error.message.slice(0, 500) : ''}`)
    })
    const { size } = await stat(path).catch(() => ({ size: 0 }))
    if (size === 0) throw new Failure('NOT_VERIFIED', `"${browser}" made no PDF`, { hint: 'write the page with --html instead' })
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 5 })
  }
}

async function findBrowser(): Promise<string | undefined> {
  const directories = (process.env.PATH ?? '/usr/bin').split(delimiter).filter((each) => each !== '')
  for (const name of NAMES) {
    for (const directory of directories) {
      const path = join(directory, name)
      const found = await access(path).then(
        () => true,
        () => false,
      )
      if (found) return path
    }
  }
  return undefined
}
