WITH touched AS (
    SELECT DISTINCT card, date_trunc('day', "at") AS since
    FROM changed.accepted
)

SELECT
    card,
    since,
    count(*) AS payments,
    sum(amount) AS spent
FROM (
    SELECT card, date_trunc('day', "at") AS since, amount
    FROM accepted
) AS every
INNER JOIN touched USING (card, since)
GROUP BY card, since
