import { sql, type RawBuilder } from 'kysely'
import { Refusal } from '../refusal.ts'
import { isUuid } from '../uuid.ts'
import type { SearchColumn } from './search-columns.ts'
import {
  alternatives,
  badValue,
  parseTime,
  parseToken,
  searchKey,
  unescaped,
  type SearchedTime,
  type SearchedToken,
} from './search-values.ts'
import type { ServedType } from './served-types.ts'

export type Condition = RawBuilder<unknown>

/** One parameter of a search as it was sent: "family:exact" = "Ojo,Ojó". */
export interface SearchedParameter {
  readonly name: string
  readonly modifier: string | undefined
  readonly value: string
}

const VALUES_MAX = 200

/** What a row has to be like for a parameter. Throws BAD_REQUEST for a value or a modifier that the parameter does not have. */
export function conditionOf(served: ServedType, column: SearchColumn, parameter: SearchedParameter): Condition {
  const values = alternatives(parameter.value)
  if (values.length > VALUES_MAX) throw badValue(parameter.name, parameter.value, `at most ${VALUES_MAX} alternatives are taken`)
  requireModifier(column, parameter)
  return anyOf(values.map((value) => single(served, column, { ...parameter, value })))
}

function requireModifier(column: SearchColumn, { name, modifier }: SearchedParameter): void {
  if (modifier === undefined) return
  if (modifier === 'exact' && (column.kind === 'patient-name' || column.kind === 'text')) return
  if (column.kind === 'reference' && modifier === column.target) return
  throw new Refusal('BAD_REQUEST', `the search parameter ${name} has no modifier "${modifier.slice(0, 60)}"`, {
    issue: 'not-supported',
  })
}

function single(served: ServedType, column: SearchColumn, parameter: SearchedParameter): Condition {
  const { name, value } = parameter
  if (value === '') throw badValue(name, value, 'give a value')
  switch (column.kind) {
    case 'id':
      return idIs(served.hasUuid, 'id', unescaped(value))
    case 'reference':
      return idIs(column.target !== 'Organization', column.column, idOf(unescaped(value), column.target))
    case 'stream':
      return sql`${sql.ref(column.column)} = ${streamOf(unescaped(value), column.target)}`
    case 'time':
      return timeIs(column, parseTime(name, value))
    case 'day':
      return dayIs(column.column, parseTime(name, value))
    case 'code':
      return sql`${sql.ref(column.column)} = ${parseToken(name, value).code ?? ''}`
    case 'flag':
      if (value !== 'true' && value !== 'false') throw badValue(name, value, 'give true or false')
      return sql`${sql.ref(column.column)} = ${value === 'true'}`
    case 'token':
      return tokenIs(column.path, column.member, parseToken(name, value))
    case 'patient-identifier':
      return patientIdentifierIs(parseToken(name, value))
    case 'patient-name':
      return patientNameIs(column, unescaped(value), parameter.modifier === 'exact')
    case 'text':
      return textIs(column.column, unescaped(value), parameter.modifier === 'exact')
    case 'agent':
      return sql`${sql.ref(column.column)} = ${unescaped(value)}`
    default:
      return column satisfies never
  }
}

function anyOf(conditions: readonly Condition[]): Condition {
  return sql`(${sql.join(conditions, sql` or `)})`
}

/** An id that cannot be one finds nothing, as one that is not there. */
function idIs(isUuidColumn: boolean, column: string, id: string | undefined): Condition {
  if (id === undefined || (isUuidColumn && !isUuid(id))) return sql`false`
  return isUuidColumn ? sql`${sql.ref(column)} = ${id}::uuid` : sql`${sql.ref(column)} = ${id}`
}

/** "Patient/7f1c…" or "7f1c…"; undefined for a reference to another type. */
function idOf(text: string, target: string): string | undefined {
  const [type, id, ...more] = text.split('/')
  if (id === undefined) return type
  return type === target && more.length === 0 ? id : undefined
}

function streamOf(text: string, target: string | undefined): string {
  return target === undefined || text.startsWith(`${target}/`) ? text : `${target}/${text}`
}

/** https://hl7.org/fhir/R4/search.html#prefix: what has an end counts as all the time from its start to there, and without one as not ended. */
function timeIs(column: Extract<SearchColumn, { kind: 'time' }>, { prefix, start, end }: SearchedTime): Condition {
  const from = sql.ref(column.start)
  const until = column.end === undefined ? from : sql`coalesce(${sql.ref(column.end)}, 'infinity')`
  const within = sql`(${from} >= ${start}::timestamptz and ${until} < ${end}::timestamptz)`
  switch (prefix) {
    case 'eq':
      return within
    case 'ne':
      return sql`not coalesce(${within}, false)`
    case 'gt':
      return sql`${until} >= ${end}::timestamptz`
    case 'ge':
      return column.end === undefined
        ? sql`${from} >= ${start}::timestamptz`
        : sql`(${until} >= ${end}::timestamptz or ${within})`
    case 'lt':
      return sql`${from} < ${start}::timestamptz`
    case 'le':
      return column.end === undefined ? sql`${from} < ${end}::timestamptz` : sql`(${from} < ${start}::timestamptz or ${within})`
    case 'sa':
      return sql`${from} >= ${end}::timestamptz`
    case 'eb':
      return sql`${until} < ${start}::timestamptz`
    default:
      return prefix satisfies never
  }
}

function dayIs(column: string, { prefix, start, end }: SearchedTime): Condition {
  const day = sql.ref(column)
  const [first, after] = [start.slice(0, 10), end.slice(0, 10)]
  switch (prefix) {
    case 'eq':
      return sql`(${day} >= ${first}::date and ${day} < ${after}::date)`
    case 'ne':
      return sql`not coalesce(${day} >= ${first}::date and ${day} < ${after}::date, false)`
    case 'gt':
    case 'sa':
      return sql`${day} >= ${after}::date`
    case 'ge':
      return sql`${day} >= ${first}::date`
    case 'lt':
    case 'eb':
      return sql`${day} < ${first}::date`
    case 'le':
      return sql`${day} < ${after}::date`
    default:
      return prefix satisfies never
  }
}

function tokenIs(path: string, member: 'code' | 'value', { system, code }: SearchedToken): Condition {
  const filters = [
    ...(code === undefined ? [] : [`@.${member} == $code`]),
    ...(system === undefined ? [] : [system === '' ? '!exists(@.system)' : '@.system == $system']),
  ]
  const values = JSON.stringify({ code: code ?? '', system: system ?? '' })
  return sql`jsonb_path_exists(content, ${`${path} ? (${filters.join(' && ')})`}::jsonpath, ${values}::jsonb)`
}

const MRN_SYSTEM = 'https://his.osun.example/mrn/'

/**
 * Two conditions: one on columns, with which row security lets an index find the few rows that can be meant, and the exact one on these. The number
 * at this facility is no part of the record.
 */
function patientIdentifierIs(token: SearchedToken): Condition {
  const exact = tokenIs('$.identifier[*]', 'value', token)
  const { system, code } = token
  if (code === undefined) return exact
  const columns = [
    ...['identifier_1', 'identifier_2', 'identifier_3'].map((each) => sql`${sql.ref(each)} = ${code}`),
    sql`has_more_identifiers`,
  ]
  if (system !== undefined && !system.startsWith(MRN_SYSTEM)) return sql`(${anyOf(columns)} and ${exact})`
  const at = system === undefined ? sql`` : sql` and k.facility = ${system.slice(MRN_SYSTEM.length)}`
  const known = sql`id = any(array(select k.patient_id from patient_facilities k where k.mrn = ${code}${at}))`
  return sql`(${anyOf([...columns, known])} and ${anyOf([exact, known])})`
}

function patientNameIs(column: Extract<SearchColumn, { kind: 'patient-name' }>, text: string, isExact: boolean): Condition {
  const key = searchKey(text)
  const inColumns = column.columns.map((each) => beginsWith(sql.ref(each), key))
  const inContent = column.paths.map(
    (path) => sql`exists (select from jsonb_path_query(content, ${path}::jsonpath) as part
      where ${isExact ? sql`part #>> '{}' = ${text}` : sql`starts_with(hospital.search_key(part #>> '{}'), ${key})`})`,
  )
  return sql`(${anyOf([...inColumns, sql`has_more_names`])} and ${anyOf(isExact ? inContent : [...inColumns, ...inContent])})`
}

/** As a range, which an index finds and row security lets it find. */
function beginsWith(column: Condition, key: string): Condition {
  return sql`(${column} >= ${key} and ${column} < ${`${key}\u{10FFFF}`})`
}

function textIs(column: string, text: string, isExact: boolean): Condition {
  return isExact
    ? sql`${sql.ref(column)} = ${text}`
    : sql`starts_with(hospital.search_key(${sql.ref(column)}), ${searchKey(text)})`
}
