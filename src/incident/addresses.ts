import { lookup } from 'node:dns/promises'
import { BlockList, isIP } from 'node:net'
import { Failure, systemErrorCode } from '../errors.ts'

export interface Address {
  readonly address: string
  readonly family: 4 | 6
}

const LOOPBACK = blockList(['127.0.0.0/8', '::1/128'])

/** Where our own and other people's inner services are. */
const PRIVATE = blockList([
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  // Link-local; metadata of clouds is here.
  '169.254.0.0/16',
  // Carrier-grade NAT.
  '100.64.0.0/10',
  '192.0.0.0/24',
  // Benchmarks between devices.
  '198.18.0.0/15',
  '::1/128',
  'fe80::/10',
  'fec0::/10',
  'fc00::/7',
])

/** Nobody's, everybody's, or another way of writing an address, which would go round the list above. */
const NEVER = blockList([
  '0.0.0.0/8',
  '192.0.2.0/24',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '192.88.99.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '::/128',
  // IPv4 in IPv6: compatible, mapped, translated (NAT64), 6to4, Teredo.
  '::/96',
  '::ffff:0:0/96',
  '::ffff:0:0:0/96',
  '64:ff9b::/96',
  '64:ff9b:1::/48',
  '2002::/16',
  '2001::/32',
  '100::/64',
  '2001:db8::/32',
  'ff00::/8',
])

function blockList(subnets: readonly string[]): BlockList {
  const list = new BlockList()
  for (const subnet of subnets) {
    const [network = '', bits] = subnet.split('/')
    list.addSubnet(network, Number(bits), isIP(network) === 4 ? 'ipv4' : 'ipv6')
  }
  return list
}

export function isLoopback(address: Address): boolean {
  return isIn(LOOPBACK, address)
}

function isIn(list: BlockList, { address, family }: Address): boolean {
  return list.check(address, family === 4 ? 'ipv4' : 'ipv6')
}

/**
 * All addresses of a host name, looked up once, or those that it spells. Throws CHANNEL_UNREACHABLE when it has none, and ADDRESS_REFUSED when one of them is not
 * to be called: a name that leads outside and inside is a trick.
 */
export async function resolveAllowed(hostname: string, options: { allowPrivate: boolean }): Promise<readonly Address[]> {
  const found = await resolveHost(hostname)
  for (const each of found) {
    // ::1 is also in ::/96.
    if (options.allowPrivate && isIn(PRIVATE, each)) continue
    if (!isIn(PRIVATE, each) && !isIn(NEVER, each)) continue
    throw new Failure('ADDRESS_REFUSED', `"${hostname}" is not called: it is ${each.address}, ${describe(each)}`, {
      hint: 'notices go to public addresses alone, unless the channel has "allowPrivate: true" in the file',
    })
  }
  return found
}

function describe(address: Address): string {
  if (isLoopback(address)) return 'this host itself'
  return isIn(PRIVATE, address) ? 'a private address' : 'no address that can be called'
}

/** All addresses of a host name, in the order in which the system gives them. Throws CHANNEL_UNREACHABLE. */
export async function resolveHost(hostname: string): Promise<readonly Address[]> {
  // As a URL spells an IPv6 address.
  const bare = hostname.replace(/^\[(.*)\]$/, '$1')
  const literal = isIP(bare)
  if (literal !== 0) return [{ address: bare, family: literal === 4 ? 4 : 6 }]
  try {
    const all = await lookup(bare, { all: true })
    return all.map(({ address, family }) => ({ address, family: family === 4 ? 4 : 6 }))
  } catch (cause) {
    throw new Failure('CHANNEL_UNREACHABLE', `the name "${bare}" leads nowhere: ${systemErrorCode(cause) ?? 'no address'}`, {
      hint: 'correct the name, or see to the name service of this host',
      cause,
    })
  }
}
