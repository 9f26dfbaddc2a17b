import type { Resource } from '@medplum/fhirtypes'
import type { Draft } from './chain.ts'
import type { WithId } from './clinical-resources.ts'
import type { Plan } from './plan.ts'
import type { Facility } from './places.ts'
import type { Random } from './random.ts'

/** Something that happened, and the file that it named. */
export interface Happening {
  readonly draft: Draft
  readonly file?: Buffer
}

/** One piece of somebody's life, worked out as a whole; its happenings lie between its time and some weeks later. */
export interface Episode {
  readonly plan: Plan
  readonly patient: number
  readonly atMs: number
  readonly random: Random
  readonly happenings: Happening[]
}

export const groupActor = 'User/group'

export interface ResourceWrite {
  readonly atMs: number
  readonly type: string
  readonly resource: WithId<Resource>
  readonly facility: Facility
  readonly by: 'clinician' | 'clerk'
  readonly otherFacility?: string
  readonly continues?: boolean
  readonly file?: { readonly content: Buffer; readonly sha256: string }
}

/** Adds the writing of a resource to an episode. */
export function write(episode: Episode, given: ResourceWrite): void {
  const { atMs, type, resource, facility, by, otherFacility, continues = false, file } = given
  const draft: Draft = {
    atMs,
    stream: `${resource.resourceType}/${resource.id}`,
    type,
    schemaVersion: resource.resourceType === 'Patient' ? 2 : 1,
    facility: facility.id,
    ...(otherFacility === undefined ? {} : { otherFacility }),
    actor: `User/${facility[by]}`,
    payload: file === undefined ? { resource } : { resource, file: { sha256: file.sha256, sizeBytes: file.content.length } },
    continues,
  }
  episode.happenings.push(file === undefined ? { draft } : { draft, file: file.content })
}
