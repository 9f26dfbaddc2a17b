import type pg from 'pg'
import { z } from 'zod'

// What the catalog says that decides who may do what, and what data mean: of the cluster, and of the database that is asked.

export const catalogFactSchema = z.object({
  kind: z.string(),
  /** By which it is found again: oids, which a physical copy keeps, so that what was renamed is not lost. */
  key: z.string(),
  /** As people call it. */
  name: z.string(),
  /** It may hold what an administrator has written into a setting: never into a record. */
  value: z.string(),
})
export type CatalogFact = z.infer<typeof catalogFactSchema>

/** All facts, in the transaction that the client is in: under `textSettings`, so that they read the same everywhere. */
export async function readCatalogFacts(client: pg.Client): Promise<CatalogFact[]> {
  const facts: CatalogFact[] = []
  for (const query of QUERIES) facts.push(...(await client.query<CatalogFact>(query)).rows)
  return facts
}

/** Schemas that are the hospital's. amcheck is put into one of its own in a copy. */
const OWN = `n.nspname !~ '^(pg_|resus_verify_)' and n.nspname <> 'information_schema'`
const GRANTEE = `coalesce(g.rolname, 'public')`

const QUERIES = [
  // In a copy amcheck is made anew for its check.
  `select 'extension' as kind, extname::text as key, extname::text as name, extversion as value from pg_extension where extname <> 'amcheck'`,

  `select 'role' as kind, rolname::text as key, rolname::text as name, concat_ws(' ', case when rolsuper then 'superuser' end, case when rolinherit then 'inherit' end,
     case when rolcreaterole then 'createrole' end, case when rolcreatedb then 'createdb' end, case when rolcanlogin then 'login' end,
     case when rolreplication then 'replication' end, case when rolbypassrls then 'bypassrls' end, 'limit ' || rolconnlimit, 'until ' || rolvaliduntil::text) as value
   from pg_roles where rolname !~ '^pg_'`,

  // From 16 on a membership may be granted several times, each with options of its own.
  `select 'membership' as kind, m.member::text || ' ' || m.roleid::text as key, format('%s in %s', u.rolname, r.rolname) as name,
     concat_ws(' ', case when bool_or(m.admin_option) then 'admin' end, case when bool_or((to_jsonb(m) ->> 'inherit_option')::boolean) then 'inherit' end,
       case when bool_or((to_jsonb(m) ->> 'set_option')::boolean) then 'set' end) as value
   from pg_auth_members m join pg_roles u on u.oid = m.member join pg_roles r on r.oid = m.roleid group by m.member, m.roleid, u.rolname, r.rolname`,

  `select 'database' as kind, datname::text as key, datname::text as name,
     concat_ws(' ', pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider::text, coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')) as value
   from pg_database d where not datistemplate`,

  `select 'setting' as kind, s.setdatabase::text || ' ' || s.setrole::text || ' ' || split_part(each, '=', 1) as key,
     format('%s%s%s', split_part(each, '=', 1), ' of the role ' || r.rolname, ' in the database ' || d.datname) as name,
     substr(each, strpos(each, '=') + 1) as value
   from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) each`,

  `select case c.relkind when 'v' then 'view' when 'm' then 'view' else 'table' end as kind, c.oid::text as key, c.oid::regclass::text as name, 'owner ' || pg_get_userbyid(c.relowner) as value
   from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm') and ${OWN}`,

  `select kind, c.oid::text as key, c.oid::regclass::text as name, '' as value
   from pg_class c join pg_namespace n on n.oid = c.relnamespace,
     lateral (values ('row-level security', c.relrowsecurity), ('forced row-level security', c.relforcerowsecurity)) of (kind, holds)
   where c.relkind in ('r', 'p') and of.holds and ${OWN}`,

  `select 'policy' as kind, p.polrelid::text || ' ' || p.polname as key, format('%s on %s', p.polname, p.polrelid::regclass) as name,
     concat_ws(' ', p.polcmd::text, case when p.polpermissive then 'permissive' else 'restrictive' end,
       (select string_agg(coalesce(r.rolname, 'public'), ',' order by r.rolname) from unnest(p.polroles) o left join pg_roles r on r.oid = o),
       'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)) as value
   from pg_policy p`,

  `select 'right' as kind, format('%s %s %s', c.oid, a.grantee, a.privilege_type) as key, format('%s on %s for %s', lower(a.privilege_type), c.oid::regclass, ${GRANTEE}) as name,
     case when bool_or(a.is_grantable) then 'grantable' else '' end as value
   from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a left join pg_roles g on g.oid = a.grantee
   where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and a.grantee <> c.relowner and ${OWN} group by c.oid, a.grantee, a.privilege_type, g.rolname`,

  `select 'right' as kind, format('%s.%s %s %s', c.oid, t.attnum, a.grantee, a.privilege_type) as key,
     format('%s on %s of %s for %s', lower(a.privilege_type), t.attname, c.oid::regclass, ${GRANTEE}) as name, '' as value
   from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_namespace n on n.oid = c.relnamespace, aclexplode(t.attacl) a left join pg_roles g on g.oid = a.grantee
   where not t.attisdropped and ${OWN} group by c.oid, t.attnum, t.attname, a.grantee, a.privilege_type, g.rolname`,

  `select 'right' as kind, format('schema %s %s %s', n.oid, a.grantee, a.privilege_type) as key, format('%s on schema %s for %s', lower(a.privilege_type), n.nspname, ${GRANTEE}) as name, '' as value
   from pg_namespace n, aclexplode(n.nspacl) a left join pg_roles g on g.oid = a.grantee
   where a.grantee <> n.nspowner and ${OWN} group by n.oid, n.nspname, a.grantee, a.privilege_type, g.rolname`,

  `select 'right' as kind, format('function %s %s', p.oid, a.grantee) as key, format('execute on %s for %s', p.oid::regprocedure, ${GRANTEE}) as name, '' as value
   from pg_proc p join pg_namespace n on n.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a left join pg_roles g on g.oid = a.grantee
   where a.grantee <> p.proowner and ${OWN}
     and not exists (select from pg_depend e where e.classid = 'pg_proc'::regclass and e.objid = p.oid and e.deptype = 'e')
   group by p.oid, a.grantee, g.rolname`,
] as const
