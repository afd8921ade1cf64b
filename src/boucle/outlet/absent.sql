-- What PostgreSQL has and a lake has not: empty, so that those who join with it find nothing, not an error.
-- {home} and {information} as in catalogue.sql.

CREATE TABLE IF NOT EXISTS {home}.pg_attrdef (
    oid uinteger, adrelid uinteger, adnum smallint, adbin varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_aggregate (
    aggfnoid uinteger, aggkind varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_auth_members (
    roleid uinteger, member uinteger, grantor uinteger, admin_option boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_cast (
    oid uinteger, castsource uinteger, casttarget uinteger, castfunc uinteger, castcontext varchar,
    castmethod varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_collation (
    oid uinteger, collname varchar, collnamespace uinteger, collcollate varchar, collisdeterministic
    boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_db_role_setting (
    setdatabase uinteger, setrole uinteger, setconfig varchar[]);

CREATE TABLE IF NOT EXISTS {home}.pg_default_acl (
    oid uinteger, defaclrole uinteger, defaclnamespace uinteger, defaclobjtype varchar, defaclacl
    varchar[]);

CREATE TABLE IF NOT EXISTS {home}.pg_depend (
    classid uinteger, objid uinteger, objsubid int, refclassid uinteger, refobjid uinteger,
    refobjsubid int, deptype varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_enum (
    oid uinteger, enumtypid uinteger, enumsortorder float, enumlabel varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_event_trigger (
    oid uinteger, evtname varchar, evtevent varchar, evtowner uinteger, evtenabled varchar, evtfoid
    uinteger, evttags varchar[]);

CREATE TABLE IF NOT EXISTS {home}.pg_extension (
    oid uinteger, extname varchar, extowner uinteger, extnamespace uinteger, extversion varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_foreign_data_wrapper (
    oid uinteger, fdwname varchar, fdwowner uinteger);

CREATE TABLE IF NOT EXISTS {home}.pg_foreign_server (
    oid uinteger, srvname varchar, srvowner uinteger, srvfdw uinteger);

CREATE TABLE IF NOT EXISTS {home}.pg_foreign_table (
    ftrelid uinteger, ftserver uinteger, ftoptions varchar[]);

CREATE TABLE IF NOT EXISTS {home}.pg_inherits (
    inhrelid uinteger, inhparent uinteger, inhseqno int, inhdetachpending boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_locks (
    locktype varchar, database uinteger, relation uinteger, pid int, mode varchar, granted boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_matviews (
    schemaname varchar, matviewname varchar, matviewowner varchar, definition varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_opclass (
    oid uinteger, opcname varchar, opcmethod uinteger, opcnamespace uinteger, opcdefault boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_operator (
    oid uinteger, oprname varchar, oprnamespace uinteger, oprkind varchar, oprleft uinteger,
    oprright uinteger, oprresult uinteger, oprcode uinteger);

CREATE TABLE IF NOT EXISTS {home}.pg_partitioned_table (
    partrelid uinteger, partstrat varchar, partnatts smallint, partattrs smallint[]);

CREATE TABLE IF NOT EXISTS {home}.pg_policy (
    oid uinteger, polname varchar, polrelid uinteger, polcmd varchar, polpermissive boolean,
    polroles uinteger[], polqual varchar, polwithcheck varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_publication (
    oid uinteger, pubname varchar, puballtables boolean, pubviaroot boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_publication_rel (
    oid uinteger, prpubid uinteger, prrelid uinteger);

CREATE TABLE IF NOT EXISTS {home}.pg_range (
    rngtypid uinteger, rngsubtype uinteger, rngmultitypid uinteger, rngcollation uinteger, rngsubopc
    uinteger);

CREATE TABLE IF NOT EXISTS {home}.pg_rewrite (
    oid uinteger, rulename varchar, ev_class uinteger, ev_type varchar, ev_enabled varchar,
    is_instead boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_seclabel (
    objoid uinteger, classoid uinteger, objsubid int, provider varchar, label varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_sequence (
    seqrelid uinteger, seqtypid uinteger, seqstart bigint, seqincrement bigint, seqmax bigint,
    seqmin bigint, seqcache bigint, seqcycle boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_sequences (
    schemaname varchar, sequencename varchar, sequenceowner varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_shdescription (
    objoid uinteger, classoid uinteger, description varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_stat_activity (
    datid uinteger, datname varchar, pid int, usename varchar, application_name varchar, state
    varchar, query varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_statistic_ext (
    oid uinteger, stxrelid uinteger, stxname varchar, stxnamespace uinteger, stxowner uinteger,
    stxstattarget int, stxkeys smallint[], stxkind varchar[]);

CREATE TABLE IF NOT EXISTS {home}.pg_subscription (
    oid uinteger, subname varchar, subdbid uinteger);

CREATE TABLE IF NOT EXISTS {home}.pg_timezone_abbrevs (
    abbrev varchar, utc_offset interval, is_dst boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_trigger (
    oid uinteger, tgrelid uinteger, tgname varchar, tgfoid uinteger, tgenabled varchar, tgisinternal
    boolean, tgconstraint uinteger, tgparentid uinteger, tgdeferrable boolean, tginitdeferred
    boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_views (
    schemaname varchar, viewname varchar, viewowner varchar, definition varchar);

CREATE TABLE IF NOT EXISTS {information}.constraint_column_usage (
    table_catalog varchar, table_schema varchar, table_name varchar, column_name varchar,
    constraint_catalog varchar, constraint_schema varchar, constraint_name varchar);

CREATE TABLE IF NOT EXISTS {information}.referential_constraints (
    constraint_catalog varchar, constraint_schema varchar, constraint_name varchar,
    unique_constraint_catalog varchar, unique_constraint_schema varchar, unique_constraint_name
    varchar, match_option varchar, update_rule varchar, delete_rule varchar);

CREATE TABLE IF NOT EXISTS {information}.routines (
    specific_catalog varchar, specific_schema varchar, specific_name varchar, routine_catalog
    varchar, routine_schema varchar, routine_name varchar, routine_type varchar, data_type varchar);

CREATE TABLE IF NOT EXISTS {information}.sequences (
    sequence_catalog varchar, sequence_schema varchar, sequence_name varchar, data_type varchar);

CREATE TABLE IF NOT EXISTS {information}.parameters (
    specific_catalog varchar, specific_schema varchar, specific_name varchar, ordinal_position int,
    parameter_mode varchar, parameter_name varchar, data_type varchar);

CREATE TABLE IF NOT EXISTS {information}.triggers (
    trigger_catalog varchar, trigger_schema varchar, trigger_name varchar, event_object_table
    varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_conversion (
    oid uinteger, tableoid uinteger, conname varchar, connamespace uinteger, conowner uinteger,
    conforencoding int, contoencoding int, conproc uinteger, condefault boolean);

CREATE TABLE IF NOT EXISTS {home}.pg_policies (
    schemaname varchar, tablename varchar, policyname varchar, permissive varchar, roles varchar[],
    cmd varchar, qual varchar, with_check varchar);

CREATE TABLE IF NOT EXISTS {home}.pg_available_extensions (
    name varchar, default_version varchar, installed_version varchar, comment varchar);
