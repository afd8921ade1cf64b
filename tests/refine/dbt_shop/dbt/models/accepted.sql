select * from {{ source('lake', 'payments') }} where amount >= {{ var('least') }}
