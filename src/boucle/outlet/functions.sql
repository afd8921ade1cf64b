-- The functions of PostgreSQL's catalogue that tools call; {home} as in catalogue.sql.

CREATE OR REPLACE MACRO {home}.version() AS '{version}';
CREATE OR REPLACE MACRO {home}.current_schemas(implicit) AS {visible};
CREATE OR REPLACE MACRO {home}.format_type(type_oid, type_mod) AS (
    SELECT CASE WHEN tid = 1700 AND type_mod > 3
        THEN 'numeric(' || ((type_mod - 4) >> 16) || ',' || ((type_mod - 4) & 65535) || ')'
        ELSE tsaid END
    FROM {home}.types WHERE tid = type_oid);
CREATE OR REPLACE MACRO {home}.pg_table_is_visible(table_oid) AS
    coalesce((SELECT rvisible FROM {home}.relations WHERE rid = table_oid), false);
CREATE OR REPLACE MACRO {home}.pg_type_is_visible(type_oid) AS true;
CREATE OR REPLACE MACRO {home}.pg_function_is_visible(function_oid) AS true;
CREATE OR REPLACE MACRO {home}.pg_get_userbyid(role_oid) AS 'boucle';
CREATE OR REPLACE MACRO {home}.pg_get_expr(expression, relation) AS expression,
    (expression, relation, pretty) AS expression;
CREATE OR REPLACE MACRO {home}.pg_get_constraintdef(constraint_oid) AS (
    SELECT 'PRIMARY KEY (' || string_agg('"' || aname || '"', ', ' ORDER BY list_position(kcolumns, anum)) || ')'
    FROM {home}.keys JOIN {home}.attributes ON arel = krel AND list_contains(kcolumns, anum)
    WHERE kcon = constraint_oid),
    (constraint_oid, pretty) AS (
    SELECT 'PRIMARY KEY (' || string_agg('"' || aname || '"', ', ' ORDER BY list_position(kcolumns, anum)) || ')'
    FROM {home}.keys JOIN {home}.attributes ON arel = krel AND list_contains(kcolumns, anum)
    WHERE kcon = constraint_oid);
CREATE OR REPLACE MACRO {home}.pg_get_indexdef(index_oid) AS (
    SELECT 'CREATE UNIQUE INDEX "' || kname || '" ON ' || rzone || '."' || rname || '" USING btree ('
        || string_agg('"' || aname || '"', ', ' ORDER BY list_position(kcolumns, anum)) || ')'
    FROM {home}.keys JOIN {home}.relations ON rid = krel
    JOIN {home}.attributes ON arel = krel AND list_contains(kcolumns, anum)
    WHERE kindex = index_oid GROUP BY kname, rzone, rname),
    (index_oid, number, pretty) AS (
    SELECT max(CASE WHEN number = 0
            THEN 'CREATE UNIQUE INDEX "' || kname || '" ON ' || rzone || '."' || rname || '" USING btree (' ELSE '' END)
        || string_agg('"' || aname || '"', ', ' ORDER BY list_position(kcolumns, anum))
            FILTER (number = 0 OR anum = kcolumns[number])
        || max(CASE WHEN number = 0 THEN ')' ELSE left(kname, 0) END)
    FROM {home}.keys JOIN {home}.relations ON rid = krel
    JOIN {home}.attributes ON arel = krel AND list_contains(kcolumns, anum)
    WHERE kindex = index_oid GROUP BY kname, rzone, rname);
CREATE OR REPLACE MACRO {home}.pg_get_viewdef(view_oid) AS NULL::VARCHAR, (view_oid, pretty) AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.pg_get_serial_sequence(table_name, column_name) AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.pg_get_partkeydef(table_oid) AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.pg_get_statisticsobjdef_columns(statistics_oid) AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.pg_get_function_result(function_oid) AS 'internal';
CREATE OR REPLACE MACRO {home}.pg_get_function_arguments(function_oid) AS '';
CREATE OR REPLACE MACRO {home}.pg_get_function_identity_arguments(function_oid) AS '';
CREATE OR REPLACE MACRO {home}.pg_get_functiondef(function_oid) AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.pg_get_triggerdef(trigger_oid) AS NULL::VARCHAR, (trigger_oid, pretty) AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.pg_get_ruledef(rule_oid) AS NULL::VARCHAR, (rule_oid, pretty) AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.pg_relation_is_publishable(table_oid) AS false;
CREATE OR REPLACE MACRO {home}.obj_description(object_oid) AS (
    SELECT nullif(rtext, '') FROM {home}.relations WHERE rid = object_oid),
    (object_oid, class_name) AS (
    SELECT nullif(rtext, '') FROM {home}.relations WHERE rid = object_oid AND class_name = 'pg_class');
CREATE OR REPLACE MACRO {home}.col_description(table_oid, number) AS (
    SELECT nullif(atext, '') FROM {home}.attributes WHERE arel = table_oid AND anum = number);
CREATE OR REPLACE MACRO {home}.shobj_description(object_oid, class_name) AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.has_table_privilege(thing, wanted) AS upper(wanted) LIKE 'SELECT%',
    (who, thing, wanted) AS upper(wanted) LIKE 'SELECT%';
CREATE OR REPLACE MACRO {home}.has_any_column_privilege(thing, wanted) AS upper(wanted) LIKE 'SELECT%',
    (who, thing, wanted) AS upper(wanted) LIKE 'SELECT%';
CREATE OR REPLACE MACRO {home}.has_column_privilege(thing, part, wanted) AS upper(wanted) LIKE 'SELECT%',
    (who, thing, part, wanted) AS upper(wanted) LIKE 'SELECT%';
CREATE OR REPLACE MACRO {home}.has_schema_privilege(thing, wanted) AS upper(wanted) LIKE 'USAGE%',
    (who, thing, wanted) AS upper(wanted) LIKE 'USAGE%';
CREATE OR REPLACE MACRO {home}.has_database_privilege(thing, wanted) AS upper(wanted) LIKE 'CONNECT%',
    (who, thing, wanted) AS upper(wanted) LIKE 'CONNECT%';
CREATE OR REPLACE MACRO {home}.has_function_privilege(thing, wanted) AS true, (who, thing, wanted) AS true;
CREATE OR REPLACE MACRO {home}.has_sequence_privilege(thing, wanted) AS false, (who, thing, wanted) AS false;
CREATE OR REPLACE MACRO {home}.pg_has_role(thing, wanted) AS true, (who, thing, wanted) AS true;
CREATE OR REPLACE MACRO {home}.pg_encoding_to_char(number) AS 'UTF8';
CREATE OR REPLACE MACRO {home}.pg_is_in_recovery() AS false;
CREATE OR REPLACE MACRO {home}.pg_backend_pid() AS 0;
CREATE OR REPLACE MACRO {home}.pg_advisory_unlock_all() AS NULL::VARCHAR;
CREATE OR REPLACE MACRO {home}.pg_relation_size(thing) AS 0::BIGINT, (thing, fork) AS 0::BIGINT;
CREATE OR REPLACE MACRO {home}.pg_table_size(thing) AS 0::BIGINT;
CREATE OR REPLACE MACRO {home}.pg_indexes_size(thing) AS 0::BIGINT;
CREATE OR REPLACE MACRO {home}.pg_total_relation_size(thing) AS 0::BIGINT;
CREATE OR REPLACE MACRO {home}.pg_database_size(thing) AS 0::BIGINT;
CREATE OR REPLACE MACRO {home}.pg_tablespace_location(thing) AS '';
CREATE OR REPLACE MACRO {home}.pg_client_encoding() AS 'UTF8';
CREATE OR REPLACE MACRO {home}.array_to_string(list, mark) AS list_aggregate(list, 'string_agg', mark),
    (list, mark, missing) AS list_aggregate(list_transform(list, lambda e: coalesce(e, missing)), 'string_agg', mark);
CREATE OR REPLACE MACRO {home}.array_upper(list, dimension) AS nullif(len(list), 0)::INTEGER;
CREATE OR REPLACE MACRO {home}.array_lower(list, dimension) AS CASE WHEN len(list) > 0 THEN 1 END;
CREATE OR REPLACE MACRO {home}.array_in(said, element, modifier) AS said;
CREATE OR REPLACE MACRO {home}.quote_ident(word) AS
    CASE WHEN regexp_full_match(word, '[a-z_][a-z0-9_]*') THEN word ELSE '"' || replace(word, '"', '""') || '"' END;
CREATE OR REPLACE MACRO {home}.quote_literal(word) AS '''' || replace(word, '''', '''''') || '''';
-- PostgreSQL's format() knows %s, %I and %L, DuckDB's {}: which of them is meant, the text says.
CREATE OR REPLACE MACRO {home}.formatted_one(kind, given) AS CASE kind
    WHEN '%I' THEN {home}.quote_ident(given::VARCHAR) WHEN '%L' THEN coalesce({home}.quote_literal(given::VARCHAR), 'NULL')
    WHEN '%s' THEN coalesce(given::VARCHAR, '') ELSE '' END;
CREATE OR REPLACE MACRO {home}.formatted(text, given) AS list_aggregate(list_transform(
    string_split_regex(text, '%[sIL]'),
    lambda piece, n: replace(piece, '%%', '%') || {home}.formatted_one(regexp_extract_all(text, '%[sIL]')[n], given[n])),
    'string_agg', '');
CREATE OR REPLACE MACRO {home}.format(text) AS replace(text, '%%', '%'),
    (text, a) AS CASE WHEN regexp_matches(text, '%[sIL]') THEN {home}.formatted(text, [a::VARCHAR, NULL])
        ELSE system.main.format(text, a) END,
    (text, a, b) AS CASE WHEN regexp_matches(text, '%[sIL]') THEN {home}.formatted(text, [a::VARCHAR, b::VARCHAR])
        ELSE system.main.format(text, a, b) END,
    (text, a, b, c) AS CASE WHEN regexp_matches(text, '%[sIL]')
        THEN {home}.formatted(text, [a::VARCHAR, b::VARCHAR, c::VARCHAR]) ELSE system.main.format(text, a, b, c) END;
CREATE OR REPLACE MACRO {home}.parse_ident(given) AS list_transform(
    regexp_extract_all(given, '"(?:[^"]|"")*"|[^."]+'),
    lambda part: CASE WHEN part LIKE '"%' THEN replace(part[2:-2], '""', '"') ELSE lower(part) END);
-- The patterns of to_char for times, as far as tools use them; SS goes before MS and MI, which share its letter.
CREATE OR REPLACE MACRO {home}.to_char(given, pattern) AS strftime(given, replace(replace(replace(replace(replace(
    replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
    pattern, 'YYYY', '%Y'), 'YY', '%y'), 'SS', '%S'), 'MS', '%g'), 'US', '%f'), 'MI', '%M'), 'MM', '%m'),
    'DDD', '%j'), 'DD', '%d'), 'HH24', '%H'), 'HH12', '%I'), 'Month', '%B'), 'Mon', '%b'), 'Day', '%A'),
    'TZH:TZM', '%z'), 'TZ', '%Z'));
CREATE OR REPLACE MACRO {home}.pg_get_keywords() AS TABLE
    SELECT keyword_name AS word, left(keyword_category, 1) AS catcode, keyword_category AS catdesc FROM duckdb_keywords();
CREATE OR REPLACE MACRO {home}.pg_stat_get_numscans(thing) AS 0::BIGINT;
CREATE OR REPLACE MACRO {home}.set_config(setting, value, is_local) AS value;
CREATE OR REPLACE MACRO {home}.current_setting(wanted) AS CASE lower(wanted)
        WHEN 'timezone' THEN current_setting('TimeZone') WHEN 'search_path' THEN replace(replace(current_setting('search_path'), 'boucle.', ''), ',', ', ')
        ELSE (SELECT max(ssetting) FROM {home}.settings WHERE lower(sname) = lower(wanted)) END,
    (wanted, missing_ok) AS CASE lower(wanted)
        WHEN 'timezone' THEN current_setting('TimeZone') WHEN 'search_path' THEN replace(replace(current_setting('search_path'), 'boucle.', ''), ',', ', ')
        ELSE (SELECT max(ssetting) FROM {home}.settings WHERE lower(sname) = lower(wanted)) END;
CREATE OR REPLACE MACRO {home}.to_regclass(given) AS (
    SELECT rid FROM {home}.relations
    WHERE replace(given, '"', '') = rzone || '.' || rname OR (rvisible AND replace(given, '"', '') = rname) LIMIT 1);
CREATE OR REPLACE MACRO {home}.to_regtype(given) AS (
    SELECT tid FROM {home}.types
    WHERE lower(replace(replace(given, 'pg_catalog.', ''), '"', '')) IN (tname, tsaid) LIMIT 1);
CREATE OR REPLACE MACRO {home}.to_regnamespace(given) AS (
    SELECT nid FROM {home}.namespaces WHERE nname = replace(given, '"', ''));
CREATE OR REPLACE MACRO {home}.regclass_in(given) AS coalesce(
    try_cast(given AS UINTEGER), {home}.to_regclass(given),
    CASE replace(given, 'pg_catalog.', '') WHEN 'pg_class' THEN 1259 WHEN 'pg_type' THEN 1247
        WHEN 'pg_namespace' THEN 2615 WHEN 'pg_proc' THEN 1255 WHEN 'pg_constraint' THEN 2606
        WHEN 'pg_database' THEN 1262 WHEN 'pg_trigger' THEN 2620 WHEN 'pg_attrdef' THEN 2604 END,
    CASE WHEN given IS NOT NULL THEN error('relation "' || given || '" does not exist') END::UINTEGER);
CREATE OR REPLACE MACRO {home}.regclass_out(number) AS coalesce(
    (SELECT CASE WHEN rvisible THEN {home}.quote_ident(rname)
        ELSE {home}.quote_ident(rzone) || '.' || {home}.quote_ident(rname) END
     FROM {home}.relations WHERE rid = number), CASE number WHEN 0 THEN '-' ELSE number::VARCHAR END);
CREATE OR REPLACE MACRO {home}.regtype_in(given) AS coalesce(try_cast(given AS UINTEGER), {home}.to_regtype(given));
CREATE OR REPLACE MACRO {home}.regtype_out(number) AS coalesce({home}.format_type(number, NULL), number::VARCHAR);
CREATE OR REPLACE MACRO {home}.regproc_in(given) AS coalesce(
    try_cast(given AS UINTEGER), CASE replace(given, 'pg_catalog.', '') WHEN 'array_in' THEN 750 ELSE 1 END);
CREATE OR REPLACE MACRO {home}.regproc_out(number) AS CASE number WHEN 750 THEN 'array_in' WHEN 0 THEN '-' ELSE 'internal' END;
CREATE OR REPLACE MACRO {home}.regprocedure_in(given) AS 0;
CREATE OR REPLACE MACRO {home}.regprocedure_out(number) AS number::VARCHAR;
CREATE OR REPLACE MACRO {home}.regnamespace_in(given) AS coalesce(try_cast(given AS UINTEGER), {home}.to_regnamespace(given));
CREATE OR REPLACE MACRO {home}.regnamespace_out(number) AS (
    SELECT nname FROM {home}.namespaces WHERE nid = number);
CREATE OR REPLACE MACRO {home}.regrole_in(given) AS 10;
CREATE OR REPLACE MACRO {home}.regrole_out(number) AS 'boucle';
CREATE OR REPLACE MACRO {information}._pg_expandarray(list) AS
    unnest(list_transform(list, lambda x, i: {{'x': x, 'n': i}}));
