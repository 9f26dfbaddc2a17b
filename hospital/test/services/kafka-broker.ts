import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

const VERSION = '3.9.1'
const MAVEN_TIMEOUT_MS = 240_000
const START_TIMEOUT_MS = 90_000
const STOP_TIMEOUT_MS = 20_000
const HEAP = '-Xmx256m'
const POM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>hospital.test</groupId>
  <artifactId>kafka-broker</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${VERSION}</version></dependency>
  </dependencies>
</project>
`

/** A running Apache Kafka: one node in KRaft mode, in a temporary directory. Disposing of it removes both. */
export interface KafkaBroker extends AsyncDisposable {
  /** host:port */
  readonly address: string
  /** Ends the broker as a lost power would, and keeps its files. */
  kill(): Promise<void>
  /** Starts it again on its files, at the same address. */
  start(): Promise<void>
}

/** The jars of Apache Kafka by Maven, or why they cannot be had here: no Java, no Maven, no artefacts. Asked of Maven once, and remembered below the cache directory. */
export async function kafkaJars(): Promise<{ readonly classpath: string } | { readonly missing: string }> {
  const java = await run('java', ['-version'], { timeout: 20_000 }).catch(() => undefined)
  if (java === undefined) return { missing: 'there is no Java here' }
  const cache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'hospital-kafka', VERSION)
  const remembered = join(cache, 'classpath')
  const before = await readFile(remembered, 'utf8').catch(() => '')
  if (before !== '' && before.split(':').every((jar) => existsSync(jar))) return { classpath: before }
  await mkdir(cache, { recursive: true })
  await writeFile(join(cache, 'pom.xml'), POM)
  const output = join(cache, `classpath.${process.pid}`)
  const goal = ['-q', '-B', '-f', join(cache, 'pom.xml'), 'dependency:build-classpath', `-Dmdep.outputFile=${output}`]
  try {
    await run('mvn', goal, { timeout: MAVEN_TIMEOUT_MS })
  } catch (error) {
    return {
      missing: `Maven does not find Apache Kafka ${VERSION}: ${error instanceof Error ? error.message.slice(0, 300) : ''}`,
    }
  }
  await rename(output, remembered)
  return { classpath: (await readFile(remembered, 'utf8')).trim() }
}

export async function startKafka(classpath: string): Promise<KafkaBroker> {
  const directory = await mkdtemp(join(tmpdir(), 'hospital-kafka-'))
  const [port, controller] = [await freePort(), await freePort()]
  const properties = join(directory, 'server.properties')
  await writeFile(properties, settings(directory, port, controller))
  const clusterId = randomBytes(16).toString('base64url')
  await run('java', [HEAP, '-cp', classpath, 'kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', properties], {
    timeout: START_TIMEOUT_MS,
  })
  let child: ChildProcess | undefined
  const start = async (): Promise<void> => {
    const log = await open(join(directory, 'server.log'), 'a')
    child = spawn('java', [HEAP, '-Dkafka.logs.dir=' + directory, '-cp', classpath, 'kafka.Kafka', properties], {
      stdio: ['ignore', log.fd, log.fd],
    })
    await log.close()
    await untilItListens(child, port, join(directory, 'server.log'))
  }
  const kill = async (): Promise<void> => {
    const ended = child
    child = undefined
    if (ended === undefined || ended.exitCode !== null || ended.signalCode !== null) return
    const exited = new Promise((resolve) => ended.once('exit', resolve))
    ended.kill('SIGKILL')
    await Promise.race([exited, sleep(STOP_TIMEOUT_MS, undefined, { ref: false })])
  }
  const remove = async (): Promise<void> => {
    await kill()
    await rm(directory, { recursive: true, force: true, maxRetries: 5 })
  }
  await start().catch(async (error: unknown) => {
    await remove()
    throw error
  })
  return { address: `127.0.0.1:${port}`, kill, start, [Symbol.asyncDispose]: remove }
}

function settings(directory: string, port: number, controller: number): string {
  return Object.entries({
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controller}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controller}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'log.dirs': join(directory, 'data'),
    'auto.create.topics.enable': 'false',
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'num.network.threads': '1',
    'num.io.threads': '2',
    'log.cleaner.enable': 'false',
  })
    .map(([name, value]) => `${name}=${value}\n`)
    .join('')
}

async function untilItListens(child: ChildProcess, port: number, log: string): Promise<void> {
  const untilMs = Date.now() + START_TIMEOUT_MS
  while (Date.now() < untilMs) {
    if (child.exitCode !== null) break
    if (await accepts(port)) return
    await sleep(100)
  }
  child.kill('SIGKILL')
  throw new Error(`Apache Kafka does not start: ${(await readFile(log, 'utf8').catch(() => '')).slice(-2000)}`)
}

async function accepts(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    const settle = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => settle(true))
    socket.once('error', () => settle(false))
  })
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('a listening TCP server has an address')
  return address.port
}
