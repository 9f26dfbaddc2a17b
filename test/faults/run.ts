import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

// `npm run faults -- --runs N [--seed S]`: many runs of the kills of kill.test.ts, one kind and one seed at a time. It remembers how far it came:
// started again after it was ended, it goes on behind the last run that is recorded. --restart forgets that. Each N has its own record.

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))
const KINDS = ['backup', 'restore', 'server', 'receiver'] as const
const RUNS_DEFAULT = 100

interface Progress {
  /** Run number i has the seed `seed + i`. */
  readonly seed: number
  readonly done: number
  readonly failed: readonly string[]
}

const { values } = parseArgs({
  options: { runs: { type: 'string' }, seed: { type: 'string' }, restart: { type: 'boolean', default: false } },
})
process.exitCode = await runAll({
  runs: Number(values.runs ?? RUNS_DEFAULT),
  seed: values.seed === undefined ? undefined : Number(values.seed),
  restart: values.restart,
})

async function runAll(asked: { runs: number; seed: number | undefined; restart: boolean }): Promise<number> {
  const record = join(tmpdir(), `resus-faults-${process.getuid?.() ?? 0}-${asked.runs}.json`)
  const recorded = asked.restart ? undefined : await readProgress(record)
  const goesOn = recorded !== undefined && (asked.seed === undefined || asked.seed === recorded.seed)
  let progress: Progress = goesOn ? recorded : { seed: asked.seed ?? randomInt(1_000_000), done: 0, failed: [] }
  print(`seeds from ${progress.seed}; ${progress.done} of ${asked.runs} runs are done; recorded in ${record}`)
  while (progress.done < asked.runs) {
    const seed = progress.seed + progress.done
    const fault = `${KINDS[seed % KINDS.length]}:${seed}`
    const begun = performance.now()
    const { status, output } = await runOne(fault)
    if (status === null) return 1
    const seconds = Math.round((performance.now() - begun) / 1000)
    const said = output.split('\n').filter((line) => line.includes(`seed ${seed}`))
    print(`${progress.done + 1}: ${fault} ${status === 0 ? 'ok' : 'FAILED'} (${seconds} s) ${said.join(' ').trim()}`)
    if (status !== 0) print(output)
    progress = { ...progress, done: progress.done + 1, failed: status === 0 ? progress.failed : [...progress.failed, fault] }
    await writeFile(record, JSON.stringify(progress))
  }
  await rm(record, { force: true })
  print(`${progress.done} runs, ${progress.failed.length} failed${progress.failed.map((fault) => ` ${fault}`).join('')}`)
  return progress.failed.length === 0 ? 0 : 1
}

/** Status null: we were told to end. */
function runOne(fault: string): Promise<{ status: number | null; output: string }> {
  const child = spawn(process.execPath, ['test/run.ts', 'faults/kill.test'], {
    cwd: CHECKOUT,
    env: { ...process.env, RESUS_FAULT: fault },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  let interrupted = false
  const interrupt = () => {
    interrupted = true
    child.kill('SIGTERM')
  }
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, interrupt)
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status) => {
      for (const name of ['SIGINT', 'SIGTERM'] as const) process.off(name, interrupt)
      resolve({ status: interrupted ? null : (status ?? 1), output })
    })
  })
}

async function readProgress(record: string): Promise<Progress | undefined> {
  try {
    return JSON.parse(await readFile(record, 'utf8')) as Progress
  } catch {
    // Nothing is recorded: begin anew.
    return undefined
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}
