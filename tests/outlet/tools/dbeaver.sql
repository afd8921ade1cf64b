-- What DBeaver asks of a PostgreSQL server when it connects and its tree of objects is opened.
-- Each question: "-- name, at least N rows", then one statement; {schema} and {table} are the OIDs of silver.features.

-- version, at least 1 rows
SELECT version();

-- where, at least 1 rows
SELECT current_schema(),session_user;

-- path, at least 1 rows
SHOW search_path;

-- settings, at least 1 rows
select * from pg_catalog.pg_settings where name='standard_conforming_strings';

-- databases, at least 1 rows
SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate OR db.datname ='boucle' ORDER BY db.datname;

-- database, at least 1 rows
SELECT db.oid,db.*,pg_catalog.shobj_description(db.oid,'pg_database') AS description FROM pg_catalog.pg_database db WHERE datname='boucle';

-- session, at least 1 rows
SELECT pg_backend_pid(), inet_server_addr(), inet_server_port(), pg_postmaster_start_time() IS NOT NULL, current_database(), current_catalog;

-- schemas, at least 3 rows
SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass ORDER BY nspname;

-- types, at least 20 rows
SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description
FROM pg_catalog.pg_type t
LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem
LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid
WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C');

-- enums, at least 0 rows
SELECT e.enumlabel FROM pg_catalog.pg_enum e WHERE e.enumtypid=0 ORDER BY e.enumsortorder;

-- tables, at least 1 rows
SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key
FROM pg_catalog.pg_class c
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass
WHERE c.relnamespace={schema} AND c.relkind not in ('i','I','c');

-- columns, at least 4 rows
SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid
FROM pg_catalog.pg_attribute a
INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)
LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)
LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)
LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid
WHERE NOT a.attisdropped AND c.oid={table} ORDER BY a.attnum;

-- constraints, at least 1 rows
SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description,
case when c.contype='c' then "substring"(pg_get_constraintdef(c.oid), 7) else null end consrc_copy
FROM pg_catalog.pg_constraint c
INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid
LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass
WHERE c.conrelid={table} ORDER BY c.oid;

-- indexes, at least 1 rows
SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as tabrelname,dsc.description,
pg_catalog.pg_get_expr(i.indpred, i.indrelid) as pred_expr,pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr,
pg_catalog.pg_relation_size(i.indexrelid) as index_rel_size,pg_catalog.pg_stat_get_numscans(i.indexrelid) as index_num_scans
FROM pg_catalog.pg_index i
INNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid
INNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid
LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid
WHERE i.indrelid={table} ORDER BY tabrelname, c.relname;

-- parents, at least 0 rows
SELECT i.*,c.relnamespace FROM pg_catalog.pg_inherits i,pg_catalog.pg_class c WHERE i.inhrelid={table} AND c.oid=i.inhparent ORDER BY i.inhseqno;

-- size, at least 1 rows
SELECT pg_catalog.pg_total_relation_size({table}), pg_catalog.pg_relation_size({table});

-- sizes, at least 1 rows
SELECT c.oid,c.relname,pg_catalog.pg_total_relation_size(c.oid) as total_rel_size,pg_catalog.pg_relation_size(c.oid) as rel_size
FROM pg_class c WHERE c.relnamespace={schema};

-- triggers, at least 0 rows
SELECT x.oid,x.*,p.pronamespace as func_schema_id,d.description FROM pg_catalog.pg_trigger x
LEFT OUTER JOIN pg_catalog.pg_proc p ON p.oid=x.tgfoid
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=x.oid AND d.objsubid=0
WHERE x.tgrelid={table} AND NOT x.tgisinternal;

-- rules, at least 0 rows
SELECT r.oid,r.* FROM pg_catalog.pg_rewrite r WHERE r.ev_class={table} AND r.rulename <> '_RETURN'::name;

-- policies, at least 0 rows
SELECT * FROM pg_catalog.pg_policies WHERE schemaname='silver' AND tablename='features';

-- functions, at least 0 rows
SELECT p.oid as poid,p.*,pg_catalog.pg_get_expr(p.proargdefaults, 0) as arg_defaults,d.description
FROM pg_catalog.pg_proc p
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=p.oid AND d.objsubid = 0
WHERE p.pronamespace={schema} ORDER BY p.proname;

-- sequences, at least 0 rows
SELECT last_value, min_value, max_value, increment_by, is_cycled FROM (SELECT NULL last_value, seqmin min_value, seqmax max_value, seqincrement increment_by, seqcycle is_cycled FROM pg_catalog.pg_sequence WHERE seqrelid={table}) s;

-- roles, at least 1 rows
SELECT a.oid,a.*,pd.description FROM pg_catalog.pg_roles a left join pg_catalog.pg_shdescription pd on a.oid = pd.objoid ORDER BY a.rolname;

-- members, at least 0 rows
SELECT roleid, member, grantor, admin_option FROM pg_catalog.pg_auth_members;

-- languages, at least 1 rows
SELECT l.oid,l.* FROM pg_catalog.pg_language l ORDER BY l.oid;

-- methods, at least 1 rows
SELECT am.oid,am.* FROM pg_catalog.pg_am am ORDER BY am.oid;

-- tablespaces, at least 1 rows
SELECT t.oid,t.*,pg_tablespace_location(t.oid) loc FROM pg_catalog.pg_tablespace t ORDER BY t.oid;

-- encodings, at least 0 rows
SELECT c.contoencoding as encid,pg_catalog.pg_encoding_to_char(c.contoencoding) as encname
FROM pg_catalog.pg_conversion c GROUP BY c.contoencoding ORDER BY 2;

-- collations, at least 0 rows
SELECT c.oid,c.* FROM pg_catalog.pg_collation c WHERE c.collnamespace={schema} ORDER BY c.oid;

-- extensions, at least 0 rows
SELECT e.oid, e.extname, e.extversion, n.nspname as schema_name FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY e.oid;

-- extensions there could be, at least 0 rows
SELECT name,default_version,installed_version,comment FROM pg_catalog.pg_available_extensions ORDER BY name;

-- foreign servers, at least 0 rows
SELECT s.oid, s.srvname FROM pg_catalog.pg_foreign_server s LEFT OUTER JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid=s.srvfdw;

-- event triggers, at least 0 rows
SELECT e.oid, e.*, p.proname FROM pg_catalog.pg_event_trigger e LEFT OUTER JOIN pg_catalog.pg_proc p ON e.evtfoid = p.oid;

-- activity, at least 0 rows
SELECT sa.* FROM pg_catalog.pg_stat_activity sa;

-- locks, at least 0 rows
SELECT l.locktype, l.mode, l.granted FROM pg_catalog.pg_locks l;

-- privileges of a table, at least 0 rows
SELECT * FROM information_schema.table_privileges WHERE table_schema='silver' AND table_name='features';

-- privileges of its columns, at least 0 rows
SELECT * FROM information_schema.column_privileges WHERE table_schema='silver' AND table_name='features';

-- privileges of roles, at least 0 rows
SELECT n.nspname, c.relname, c.relkind, c.relacl FROM pg_catalog.pg_class c, pg_catalog.pg_namespace n WHERE n.oid = c.relnamespace AND c.relacl IS NOT NULL;

-- keywords, at least 1 rows
select string_agg(word, ',') from pg_catalog.pg_get_keywords() where word <> ALL ( '{a,abs,select,table}'::text[]);

-- search, at least 1 rows
SELECT x.oid, x.relname, x.relnamespace, x.relkind FROM pg_catalog.pg_class x WHERE x.relkind in('r','v','m','f','p') AND x.relname ILIKE '%feat%' AND x.relnamespace IN ({schema}) ORDER BY x.relname LIMIT 10;

-- rows, at least 1 rows
SELECT x.* FROM silver.features x LIMIT 200;

-- count, at least 1 rows
SELECT count(*) FROM silver.features;

-- explain, at least 1 rows
EXPLAIN SELECT * FROM silver.features;
