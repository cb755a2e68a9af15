{# An amount in a currency's minor units, as Stripe counts them, in the currency itself: an
   exact decimal, by a multiplication. NULL when amount or currency is.

   Stripe's own list, not ISO 4217's: MGA has no decimals. UGX is on the list of currencies
   without decimals, and ISK has none, but both have two in the API: "To charge 5 UGX, provide
   an amount value of 500". HUF and TWD have two; their payouts are multiples of 100.
   Source: https://docs.stripe.com/currencies, zero-decimal, three-decimal, special cases. #}
{% macro minor_to_decimal(amount, currency) -%}
    {{ return(adapter.dispatch('minor_to_decimal', 'landfall')(
        amount,
        currency,
        [
            'bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'vnd', 'vuv',
            'xaf', 'xof', 'xpf',
        ],
        ['bhd', 'jod', 'kwd', 'omr', 'tnd'],
    )) }}
{%- endmacro %}

{# Literals of three places: 19 digits of an integer and 3 more, or 30 of a decimal, fit in 38. #}
{% macro duckdb__minor_to_decimal(amount, currency, zero_decimal, three_decimal) -%}
    {{ amount }} * case
        when {{ currency }} is null then null
        when lower({{ currency }}) in ('{{ zero_decimal | join("', '") }}') then 1.000
        when lower({{ currency }}) in ('{{ three_decimal | join("', '") }}') then 0.001
        else 0.010
    end
{%- endmacro %}

{% macro bigquery__minor_to_decimal(amount, currency, zero_decimal, three_decimal) -%}
    {{ amount }} * case
        when {{ currency }} is null then null
        when lower({{ currency }}) in ('{{ zero_decimal | join("', '") }}') then numeric '1'
        when lower({{ currency }}) in ('{{ three_decimal | join("', '") }}') then numeric '0.001'
        else numeric '0.01'
    end
{%- endmacro %}
