-- PostgreSQL's catalogue over the lake's tables, as far as tools ask for it; columns after PostgreSQL 14.
-- {home} and {information} are the schemas these stand in; relations, attributes, keys, types and settings are
-- tables that catalogue.py writes when the lake's tables change.

CREATE OR REPLACE VIEW {home}.pg_namespace AS
SELECT nid AS oid, nname AS nspname, 10::UINTEGER AS nspowner, NULL::VARCHAR[] AS nspacl FROM {home}.namespaces;

CREATE OR REPLACE VIEW {home}.pg_class AS
SELECT
    r.rid AS oid, r.rname AS relname, n.nid AS relnamespace, 0::UINTEGER AS reltype, 0::UINTEGER AS reloftype,
    10::UINTEGER AS relowner, CASE r.rkind WHEN 'i' THEN 403 ELSE 2 END::UINTEGER AS relam, r.rid AS relfilenode,
    0::UINTEGER AS reltablespace, 0::INTEGER AS relpages, r.rrows::FLOAT AS reltuples, 0::INTEGER AS relallvisible,
    0::UINTEGER AS reltoastrelid, r.rkeyed AS relhasindex, false AS relisshared, 'p' AS relpersistence,
    r.rkind AS relkind, r.rcount::SMALLINT AS relnatts, 0::SMALLINT AS relchecks, false AS relhasoids,
    false AS relhasrules, false AS relhastriggers, false AS relhassubclass, false AS relrowsecurity,
    false AS relforcerowsecurity, true AS relispopulated, 'd' AS relreplident, false AS relispartition,
    0::UINTEGER AS relrewrite, 0::UINTEGER AS relfrozenxid, 0::UINTEGER AS relminmxid, ['=r/boucle'] AS relacl,
    NULL::VARCHAR[] AS reloptions, NULL::VARCHAR AS relpartbound, r.rvisible AS boucle_visible
FROM {home}.relations AS r JOIN {home}.namespaces AS n ON n.nname = r.rzone;

CREATE OR REPLACE VIEW {home}.pg_attribute AS
SELECT
    a.arel AS attrelid, a.aname AS attname, a.atype AS atttypid, -1::INTEGER AS attstattarget,
    t.tlen::SMALLINT AS attlen, a.anum::SMALLINT AS attnum, (t.telement <> 0)::INTEGER AS attndims,
    -1::INTEGER AS attcacheoff, a.amod::INTEGER AS atttypmod, t.tlen > 0 AS attbyval, 'p' AS attstorage,
    'i' AS attalign, a.amust AS attnotnull, false AS atthasdef, false AS atthasmissing, '' AS attidentity,
    '' AS attgenerated, false AS attisdropped, true AS attislocal, 0::INTEGER AS attinhcount,
    0::UINTEGER AS attcollation, '' AS attcompression, NULL::VARCHAR[] AS attacl, NULL::VARCHAR[] AS attoptions,
    NULL::VARCHAR[] AS attfdwoptions, NULL::VARCHAR AS attmissingval
FROM {home}.attributes AS a JOIN {home}.types AS t ON t.tid = a.atype;

CREATE OR REPLACE VIEW {home}.pg_type AS
SELECT
    tid AS oid, tname AS typname, 11::UINTEGER AS typnamespace, 10::UINTEGER AS typowner, tlen::SMALLINT AS typlen,
    tlen > 0 AND tlen <= 8 AS typbyval, CASE tcategory WHEN 'P' THEN 'p' WHEN 'X' THEN 'p' ELSE 'b' END AS typtype,
    tcategory AS typcategory, tid IN (16, 25, 701, 1184, 26) AS typispreferred, true AS typisdefined,
    ',' AS typdelim, 0::UINTEGER AS typrelid, 0::UINTEGER AS typsubscript, telement AS typelem, tarray AS typarray,
    CASE WHEN telement <> 0 AND tlen = -1 THEN 750 ELSE 1 END::UINTEGER AS typinput, 1::UINTEGER AS typoutput,
    1::UINTEGER AS typreceive, 1::UINTEGER AS typsend, 0::UINTEGER AS typmodin, 0::UINTEGER AS typmodout,
    0::UINTEGER AS typanalyze, 'i' AS typalign, 'p' AS typstorage, false AS typnotnull, 0::UINTEGER AS typbasetype,
    -1::INTEGER AS typtypmod, 0::INTEGER AS typndims,
    CASE WHEN tcategory = 'S' THEN 100 ELSE 0 END::UINTEGER AS typcollation, NULL::VARCHAR AS typdefaultbin,
    NULL::VARCHAR AS typdefault, NULL::VARCHAR[] AS typacl
FROM {home}.types;

CREATE OR REPLACE VIEW {home}.pg_index AS
SELECT
    kindex AS indexrelid, krel AS indrelid, len(kcolumns)::SMALLINT AS indnatts,
    len(kcolumns)::SMALLINT AS indnkeyatts, true AS indisunique, false AS indnullsnotdistinct,
    true AS indisprimary, false AS indisexclusion, true AS indimmediate, false AS indisclustered,
    true AS indisvalid, false AS indcheckxmin, true AS indisready, true AS indislive, false AS indisreplident,
    kcolumns AS indkey, list_transform(kcolumns, lambda c: 0::UINTEGER) AS indcollation,
    list_transform(kcolumns, lambda c: 0::UINTEGER) AS indclass,
    list_transform(kcolumns, lambda c: 0::SMALLINT) AS indoption, NULL::VARCHAR AS indexprs,
    NULL::VARCHAR AS indpred
FROM {home}.keys;

CREATE OR REPLACE VIEW {home}.pg_constraint AS
SELECT
    k.kcon AS oid, k.kname AS conname, c.relnamespace AS connamespace, 'p' AS contype, false AS condeferrable,
    false AS condeferred, true AS convalidated, k.krel AS conrelid, 0::UINTEGER AS contypid,
    k.kindex AS conindid, 0::UINTEGER AS conparentid, 0::UINTEGER AS confrelid, ' ' AS confupdtype,
    ' ' AS confdeltype, ' ' AS confmatchtype, true AS conislocal, 0::INTEGER AS coninhcount,
    true AS connoinherit, k.kcolumns AS conkey, NULL::SMALLINT[] AS confkey, NULL::VARCHAR AS conbin
FROM {home}.keys AS k JOIN {home}.pg_class AS c ON c.oid = k.krel;

CREATE OR REPLACE VIEW {home}.pg_description AS
SELECT rid AS objoid, 1259::UINTEGER AS classoid, 0::INTEGER AS objsubid, rtext AS description
FROM {home}.relations WHERE rtext <> ''
UNION ALL
SELECT arel, 1259, anum, atext FROM {home}.attributes WHERE atext <> '';

CREATE OR REPLACE VIEW {home}.pg_database AS
SELECT
    5::UINTEGER AS oid, 'boucle' AS datname, 10::UINTEGER AS datdba, 6::INTEGER AS "encoding",
    'c' AS datlocprovider, false AS datistemplate, true AS datallowconn, -1::INTEGER AS datconnlimit,
    'C' AS datcollate, 'C' AS datctype, NULL::VARCHAR AS daticulocale, NULL::VARCHAR AS datcollversion,
    0::UINTEGER AS datfrozenxid, 0::UINTEGER AS datminmxid, 1663::UINTEGER AS dattablespace, NULL::VARCHAR[] AS datacl;

CREATE OR REPLACE VIEW {home}.pg_roles AS
SELECT
    10::UINTEGER AS oid, 'boucle' AS rolname, false AS rolsuper, true AS rolinherit, false AS rolcreaterole,
    false AS rolcreatedb, true AS rolcanlogin, false AS rolreplication, false AS rolbypassrls,
    -1::INTEGER AS rolconnlimit, '********' AS rolpassword, NULL::TIMESTAMPTZ AS rolvaliduntil,
    NULL::VARCHAR[] AS rolconfig;

CREATE OR REPLACE VIEW {home}.pg_authid AS SELECT * FROM {home}.pg_roles;

CREATE OR REPLACE VIEW {home}.pg_user AS
SELECT
    rolname AS usename, oid AS usesysid, false AS usecreatedb, false AS usesuper, false AS userepl,
    false AS usebypassrls, '********' AS passwd, NULL::TIMESTAMPTZ AS valuntil, NULL::VARCHAR[] AS useconfig
FROM {home}.pg_roles;

CREATE OR REPLACE VIEW {home}.pg_settings AS
SELECT
    sname AS name, ssetting AS setting, NULL::VARCHAR AS unit, 'boucle' AS category, '' AS short_desc, '' AS extra_desc,
    'internal' AS context, 'string' AS vartype, 'default' AS source, NULL::VARCHAR AS min_val,
    NULL::VARCHAR AS max_val, NULL::VARCHAR[] AS enumvals, ssetting AS boot_val, ssetting AS reset_val,
    false AS pending_restart
FROM {home}.settings;

CREATE OR REPLACE VIEW {home}.pg_am AS
SELECT * FROM (VALUES (2::UINTEGER, 'heap', 3::UINTEGER, 't'), (403, 'btree', 330, 'i')) AS a (oid, amname, amhandler, amtype);

CREATE OR REPLACE VIEW {home}.pg_proc AS
SELECT
    750::UINTEGER AS oid, 'array_in' AS proname, 11::UINTEGER AS pronamespace, 10::UINTEGER AS proowner,
    12::UINTEGER AS prolang, 'f' AS prokind, false AS prosecdef, false AS proleakproof, true AS proisstrict,
    false AS proretset, 's' AS provolatile, 's' AS proparallel, 3::SMALLINT AS pronargs,
    0::SMALLINT AS pronargdefaults, 2277::UINTEGER AS prorettype, [2275, 26, 23]::UINTEGER[] AS proargtypes,
    NULL::UINTEGER[] AS proallargtypes, NULL::VARCHAR AS proargdefaults, NULL::VARCHAR[] AS proargmodes, NULL::VARCHAR[] AS proargnames,
    'array_in' AS prosrc, NULL::VARCHAR AS probin, NULL::VARCHAR[] AS proconfig, NULL::VARCHAR[] AS proacl;

CREATE OR REPLACE VIEW {home}.pg_tablespace AS
SELECT 1663::UINTEGER AS oid, 'pg_default' AS spcname, 10::UINTEGER AS spcowner, NULL::VARCHAR[] AS spcacl, NULL::VARCHAR[] AS spcoptions;

CREATE OR REPLACE VIEW {home}.pg_language AS
SELECT 12::UINTEGER AS oid, 2612::UINTEGER AS tableoid, 'internal' AS lanname, 10::UINTEGER AS lanowner, false AS lanispl, false AS lanpltrusted, 0::UINTEGER AS lanplcallfoid, 0::UINTEGER AS laninline, 0::UINTEGER AS lanvalidator, NULL::VARCHAR[] AS lanacl;

CREATE OR REPLACE VIEW {home}.pg_tables AS
SELECT
    rzone AS schemaname, rname AS tablename, 'boucle' AS tableowner, NULL::VARCHAR AS "tablespace",
    rkeyed AS hasindexes, false AS hasrules, false AS hastriggers, false AS rowsecurity
FROM {home}.relations WHERE rkind = 'r';

CREATE OR REPLACE VIEW {home}.pg_indexes AS
SELECT
    r.rzone AS schemaname, r.rname AS tablename, k.kname AS indexname, NULL::VARCHAR AS "tablespace",
    '' AS indexdef
FROM {home}.keys AS k JOIN {home}.relations AS r ON r.rid = k.krel;

CREATE OR REPLACE VIEW {home}.pg_stat_user_tables AS
SELECT rid AS relid, rzone AS schemaname, rname AS relname, rrows::BIGINT AS n_live_tup
FROM {home}.relations WHERE rkind = 'r';

CREATE OR REPLACE VIEW {information}.schemata AS
SELECT
    'boucle' AS catalog_name, nname AS schema_name, 'boucle' AS schema_owner,
    NULL::VARCHAR AS default_character_set_catalog, NULL::VARCHAR AS default_character_set_schema,
    NULL::VARCHAR AS default_character_set_name, NULL::VARCHAR AS sql_path
FROM {home}.namespaces;

CREATE OR REPLACE VIEW {information}.tables AS
SELECT
    'boucle' AS table_catalog, rzone AS table_schema, rname AS table_name, 'BASE TABLE' AS table_type,
    NULL::VARCHAR AS self_referencing_column_name, NULL::VARCHAR AS reference_generation,
    NULL::VARCHAR AS user_defined_type_catalog, NULL::VARCHAR AS user_defined_type_schema,
    NULL::VARCHAR AS user_defined_type_name, 'NO' AS is_insertable_into, 'NO' AS is_typed,
    NULL::VARCHAR AS commit_action
FROM {home}.relations WHERE rkind = 'r';

CREATE OR REPLACE VIEW {information}.views AS
SELECT
    table_catalog, table_schema, table_name, NULL::VARCHAR AS view_definition, 'NONE' AS check_option,
    'NO' AS is_updatable, 'NO' AS is_insertable_into
FROM {information}.tables WHERE false;

CREATE OR REPLACE VIEW {information}.columns AS
SELECT
    'boucle' AS table_catalog, r.rzone AS table_schema, r.rname AS table_name, a.aname AS column_name,
    a.anum::INTEGER AS ordinal_position, NULL::VARCHAR AS column_default,
    CASE WHEN a.amust THEN 'NO' ELSE 'YES' END AS is_nullable,
    CASE WHEN t.telement <> 0 THEN 'ARRAY' ELSE {home}.format_type(a.atype, NULL) END AS data_type,
    NULL::INTEGER AS character_maximum_length, NULL::INTEGER AS character_octet_length,
    CASE WHEN a.atype = 1700 AND a.amod > 0 THEN (a.amod - 4) >> 16
        ELSE map_extract_value(MAP {{21: 16, 23: 32, 20: 64, 700: 24, 701: 53}}, a.atype::INTEGER) END::INTEGER AS numeric_precision,
    CASE WHEN t.tcategory <> 'N' THEN NULL WHEN a.atype = 1700 THEN 10 ELSE 2 END::INTEGER AS numeric_precision_radix,
    CASE WHEN a.atype = 1700 AND a.amod > 0 THEN (a.amod - 4) & 65535 WHEN a.atype IN (20, 21, 23) THEN 0 END::INTEGER AS numeric_scale,
    CASE WHEN a.atype IN (1114, 1184, 1083) THEN 6 WHEN a.atype = 1082 THEN 0 END::INTEGER AS datetime_precision,
    NULL::VARCHAR AS interval_type, NULL::VARCHAR AS character_set_name, NULL::VARCHAR AS collation_name,
    NULL::VARCHAR AS domain_name, 'boucle' AS udt_catalog, 'pg_catalog' AS udt_schema, t.tname AS udt_name,
    a.anum::VARCHAR AS dtd_identifier, 'NO' AS is_self_referencing, 'NO' AS is_identity,
    NULL::VARCHAR AS identity_generation, 'NEVER' AS is_generated, NULL::VARCHAR AS generation_expression,
    'NO' AS is_updatable
FROM {home}.attributes AS a
JOIN {home}.relations AS r ON r.rid = a.arel AND r.rkind = 'r'
JOIN {home}.types AS t ON t.tid = a.atype;

CREATE OR REPLACE VIEW {information}.table_constraints AS
SELECT
    'boucle' AS constraint_catalog, r.rzone AS constraint_schema, k.kname AS constraint_name,
    'boucle' AS table_catalog, r.rzone AS table_schema, r.rname AS table_name,
    'PRIMARY KEY' AS constraint_type, 'NO' AS is_deferrable, 'NO' AS initially_deferred, 'YES' AS enforced
FROM {home}.keys AS k JOIN {home}.relations AS r ON r.rid = k.krel;

CREATE OR REPLACE VIEW {information}.key_column_usage AS
SELECT
    'boucle' AS constraint_catalog, r.rzone AS constraint_schema, k.kname AS constraint_name,
    'boucle' AS table_catalog, r.rzone AS table_schema, r.rname AS table_name, a.aname AS column_name,
    list_position(k.kcolumns, a.anum)::INTEGER AS ordinal_position, NULL::INTEGER AS position_in_unique_constraint
FROM {home}.keys AS k
JOIN {home}.relations AS r ON r.rid = k.krel
JOIN {home}.attributes AS a ON a.arel = k.krel AND list_contains(k.kcolumns, a.anum);

CREATE OR REPLACE VIEW {information}.table_privileges AS
SELECT
    'boucle' AS grantor, 'boucle' AS grantee, 'boucle' AS table_catalog, rzone AS table_schema, rname AS table_name,
    'SELECT' AS privilege_type, 'NO' AS is_grantable, 'NO' AS with_hierarchy
FROM {home}.relations WHERE rkind = 'r';

CREATE OR REPLACE VIEW {information}.column_privileges AS
SELECT
    'boucle' AS grantor, 'boucle' AS grantee, 'boucle' AS table_catalog, r.rzone AS table_schema,
    r.rname AS table_name, a.aname AS column_name, 'SELECT' AS privilege_type, 'NO' AS is_grantable
FROM {home}.relations AS r JOIN {home}.attributes AS a ON a.arel = r.rid WHERE r.rkind = 'r';
