WITH touched AS (
    SELECT DISTINCT
        machine,
        sensor,
        date_trunc('minute', "at") AS since
    FROM changed.process_raw
),

readings AS (
    SELECT
        machine,
        sensor,
        status,
        value,
        date_trunc('minute', "at") AS since
    FROM process_raw
)

SELECT
    readings.machine,
    readings.sensor,
    readings.since,
    count(*) AS readings,
    count(*) FILTER (WHERE readings.status <> 'Good') AS bad,
    avg(readings.value) AS mean,
    min(readings.value) AS lowest,
    max(readings.value) AS highest
FROM readings
INNER JOIN touched
    ON
        readings.machine = touched.machine
        AND readings.sensor = touched.sensor
        AND readings.since = touched.since
GROUP BY readings.machine, readings.sensor, readings.since
