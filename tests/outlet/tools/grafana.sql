-- What the PostgreSQL data source of Grafana asks when it is added, and while a panel is edited.
-- Each question: "-- name, at least N rows", then one statement.

-- ping, at least 1 rows
SELECT 1;

-- version, at least 1 rows
SELECT current_setting('server_version_num')::int/100 as version;

-- timescale, at least 0 rows
SELECT extversion FROM pg_extension WHERE extname = 'timescaledb';

-- schemas, at least 2 rows
SELECT schema_name AS "name" FROM information_schema.schemata
WHERE schema_name NOT IN ('information_schema', 'pg_catalog', 'pg_toast', '_timescaledb_cache') ORDER BY schema_name;

-- tables of a schema, at least 1 rows
SELECT quote_ident(table_name) AS "table" FROM information_schema.tables
WHERE quote_ident(table_schema) = 'silver' ORDER BY 1;

-- tables, at least 2 rows
SELECT CASE WHEN quote_ident(table_schema) IN (
        SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
        FROM generate_series(
            array_lower(string_to_array(current_setting('search_path'), ','), 1),
            array_upper(string_to_array(current_setting('search_path'), ','), 1)) as i,
        string_to_array(current_setting('search_path'), ',') s)
    THEN quote_ident(table_name)
    ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
FROM information_schema.tables
WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache')
ORDER BY CASE WHEN quote_ident(table_schema) IN (
        SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
        FROM generate_series(
            array_lower(string_to_array(current_setting('search_path'), ','), 1),
            array_upper(string_to_array(current_setting('search_path'), ','), 1)) as i,
        string_to_array(current_setting('search_path'), ',') s) THEN 0 ELSE 1 END, 1;

-- columns, at least 4 rows
SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns
WHERE CASE WHEN array_length(parse_ident('features'), 1) = 2
    THEN quote_ident(table_schema) = (parse_ident('features'))[1]
        AND quote_ident(table_name) = (parse_ident('features'))[2]
    ELSE quote_ident(table_name) = 'features' AND quote_ident(table_schema) IN (
        SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
        FROM generate_series(
            array_lower(string_to_array(current_setting('search_path'), ','), 1),
            array_upper(string_to_array(current_setting('search_path'), ','), 1)) as i,
        string_to_array(current_setting('search_path'), ',') s) END;

-- columns of a named schema, at least 4 rows
SELECT quote_ident(column_name) AS "column" FROM information_schema.columns
WHERE CASE WHEN array_length(parse_ident('silver.features'), 1) = 2
    THEN quote_ident(table_schema) = (parse_ident('silver.features'))[1]
        AND quote_ident(table_name) = (parse_ident('silver.features'))[2] ELSE false END;

-- panel: $__timeGroup and $__timeFilter, at least 1 rows
SELECT floor(extract(epoch from "at")/60)*60 AS "time", machine AS metric, avg(value) AS value
FROM features WHERE "at" BETWEEN '2020-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z' GROUP BY 1, 2 ORDER BY 1;

-- panel: $__time and $__unixEpochFilter, at least 1 rows
SELECT "at" AS "time", value FROM silver.features
WHERE extract(epoch from "at") >= 1577836800 AND extract(epoch from "at") <= 4102444800 LIMIT 50;

-- panel: date_trunc and to_timestamp, at least 1 rows
SELECT date_trunc('minute', "at") AS "time", count(*)::bigint FROM features
WHERE "at" >= to_timestamp(1577836800) GROUP BY 1 ORDER BY 1 ASC;

-- variable: a series under one name, at least 3 rows
SELECT i AS "__value" FROM generate_series(1, 3) AS i;
