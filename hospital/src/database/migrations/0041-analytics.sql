-- What GET /analytics/facilities counts, without reading the rows themselves.
create index on hospital.encounters (facility, started_at) include (class, status, ended_at);
create index on hospital.observations (facility, issued_at) include (effective_at, status) where category = 'laboratory';
create index on hospital.invoices (facility, issued_at) include (status, total, currency);
