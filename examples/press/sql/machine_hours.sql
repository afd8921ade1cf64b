WITH touched AS (
    SELECT DISTINCT
        machine,
        date_trunc('hour', since) AS since
    FROM changed.process_minutes
),

minutes AS (
    SELECT
        machine,
        sensor,
        readings,
        bad,
        mean,
        lowest,
        highest,
        date_trunc('hour', since) AS since
    FROM process_minutes
)

SELECT
    minutes.machine,
    minutes.since,
    cast(
        max(minutes.highest) FILTER (WHERE minutes.sensor = 'stroke_count')
        - min(minutes.lowest) FILTER (WHERE minutes.sensor = 'stroke_count')
        AS BIGINT
    ) AS strokes,
    avg(minutes.mean) FILTER (WHERE minutes.sensor = 'speed_actual') AS speed,
    max(minutes.highest) FILTER (WHERE minutes.sensor = 'bearing_temperature') AS hottest_bearing,
    sum(minutes.bad) / sum(minutes.readings) AS bad_share
FROM minutes
INNER JOIN touched
    ON minutes.machine = touched.machine AND minutes.since = touched.since
GROUP BY minutes.machine, minutes.since
