-- The oracle: NEXMark's queries in DuckDB's SQL. "at" is in ns.
-- q0
SELECT auction, bidder, price FROM bids
-- q1
SELECT auction, bidder, 0.908::DOUBLE * price FROM bids
-- q2
SELECT auction, price FROM bids WHERE auction % 123 = 0
-- q3
SELECT p.name, p.city, p.state, a.id FROM auctions a JOIN persons p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
-- q4
SELECT category, avg(final) FROM
  (SELECT a.id, a.category, max(b.price) final FROM auctions a JOIN bids b
   ON a.id = b.auction AND b."at" BETWEEN a."at" AND a.expires GROUP BY ALL)
GROUP BY ALL
-- q5
WITH counts AS
  (SELECT w, auction, count(*) n FROM
    (SELECT auction, unnest(generate_series(("at" // 2000000000 - 4) * 2000000000, "at" // 2000000000 * 2000000000, 2000000000)) w
     FROM bids)
   GROUP BY ALL)
SELECT w / 1e9, auction, n FROM counts QUALIFY n = max(n) OVER (PARTITION BY w)
-- q6
SELECT seller, id, avg(price) OVER (PARTITION BY seller ORDER BY expires, id ROWS 9 PRECEDING) FROM
  (SELECT a.seller, a.id, a.expires, max(b.price) price FROM auctions a JOIN bids b
   ON a.id = b.auction AND b."at" BETWEEN a."at" AND a.expires GROUP BY ALL)
-- q7
SELECT auction, price, bidder FROM bids QUALIFY price = max(price) OVER (PARTITION BY "at" // 10000000000)
-- q8
SELECT DISTINCT p.id, p.name FROM persons p JOIN auctions a
ON p.id = a.seller AND p."at" // 10000000000 = a."at" // 10000000000
-- q11
SELECT bidder, count(*), min("at") / 1e9 FROM
  (SELECT *, sum(fresh) OVER (PARTITION BY bidder ORDER BY "at") s FROM
    (SELECT *, CASE WHEN "at" - lag("at") OVER (PARTITION BY bidder ORDER BY "at") < 2000000000 THEN 0 ELSE 1 END fresh
     FROM bids))
GROUP BY bidder, s
-- q12
SELECT bidder, count(*), "at" // 10000000000 * 10.0 FROM bids GROUP BY bidder, "at" // 10000000000
-- q13
SELECT auction, price, CASE WHEN auction % 7 < 5 THEN 'label ' || (auction % 7) END FROM bids
-- q14
SELECT auction, euros, CASE WHEN h BETWEEN 8 AND 18 THEN 'day' WHEN h <= 6 OR h >= 20 THEN 'night' ELSE 'other' END,
  length(extra) - length(replace(extra, 'c', ''))
FROM (SELECT *, 0.908::DOUBLE * price euros, "at" // 3600000000000 % 24 h FROM bids)
WHERE euros > 1000000 AND euros < 50000000
-- q16
SELECT channel, count(*), count(*) FILTER (price < 10000), count(*) FILTER (price >= 10000 AND price < 1000000),
  count(DISTINCT bidder), count(DISTINCT bidder) FILTER (price < 10000),
  count(DISTINCT bidder) FILTER (price >= 10000 AND price < 1000000), count(DISTINCT auction)
FROM bids GROUP BY channel, "at" // 86400000000000
-- q17
SELECT auction, count(*), count(*) FILTER (price < 10000), count(*) FILTER (price >= 1000000), min(price), max(price),
  avg(price), sum(price)::BIGINT
FROM bids GROUP BY auction, "at" // 86400000000000
-- q18
SELECT bidder, auction, price, channel FROM bids
QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY "at" DESC) = 1
