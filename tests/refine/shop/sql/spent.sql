WITH touched AS (
    SELECT DISTINCT
        card,
        date_trunc('day', "at") AS since
    FROM changed.accepted
),

daily AS (
    SELECT
        card,
        amount,
        date_trunc('day', "at") AS since
    FROM accepted
)

SELECT
    daily.card,
    daily.since,
    count(*) AS payments,
    sum(daily.amount) AS spent
FROM daily
INNER JOIN touched
    ON daily.card = touched.card AND daily.since = touched.since
GROUP BY daily.card, daily.since
