const SYSTEM = 'https://his.osun.example/facility-type'

/** Nigeria's three levels of care. */
export const ORGANIZATION_TYPES = {
  PRIMARY: { system: SYSTEM, code: 'PRIMARY', display: 'Primary health centre' },
  SECONDARY: { system: SYSTEM, code: 'SECONDARY', display: 'General hospital' },
  TERTIARY: { system: SYSTEM, code: 'TERTIARY', display: 'Teaching hospital' },
} as const
