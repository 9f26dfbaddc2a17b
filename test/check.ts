import { spawn } from 'node:child_process'

/** `npm run check`: format, lint with types, tsc, unit tests, side by side where they do not depend on each other. */
const STEPS: readonly (readonly [string, readonly string[]])[] = [
  ['format', ['node_modules/prettier/bin/prettier.cjs', '--check', '--log-level', 'warn', '.']],
  ['lint', ['node_modules/oxlint/bin/oxlint', '--type-aware', '--deny-warnings']],
  ['types', ['node_modules/typescript/bin/tsc', '-p', '.']],
  ['unit tests', ['test/run.ts', '--unit']],
]

function run(name: string, args: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    const output: Buffer[] = []
    child.stdout.on('data', (data: Buffer) => output.push(data))
    child.stderr.on('data', (data: Buffer) => output.push(data))
    child.on('close', (code) => {
      if (code !== 0) process.stdout.write(Buffer.concat(output))
      console.log(`${code === 0 ? 'ok    ' : 'FAILED'} ${name}`)
      resolve(code === 0)
    })
  })
}

let good = true
for (const [name, args] of STEPS) good = (await run(name, args)) && good
process.exitCode = good ? 0 : 1
