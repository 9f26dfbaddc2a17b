/** Names a component among those of all systems: in maps, and between the processes of a node. */
export function componentKey(system: string, component: string): string {
  return JSON.stringify([system, component])
}
