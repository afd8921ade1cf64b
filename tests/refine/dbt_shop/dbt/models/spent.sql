select card, date_trunc('day', "at") as since, count(*) as payments, sum(amount) as spent
from {{ ref('accepted') }}
group by 1, 2
