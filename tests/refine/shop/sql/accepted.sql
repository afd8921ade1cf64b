SELECT
    id,
    "at",
    card,
    amount
FROM changed.payments
WHERE amount >= 0
