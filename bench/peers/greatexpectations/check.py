"""Great Expectations on the orders, with pandas: `check.py FOLDER` prints seconds, peak memory and counts as JSON.

Only the columns that are checked are read. The foreign key is a set of values, as its gallery does it. What it counts
for uniqueness are rows of keys that repeat: each repeats once here, so half of them are keys.
"""

import json
import os
import resource
import sys
import time

os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import pandas as pd


def _key(config: object) -> str:
    told = {name: config.kwargs.get(name) for name in ("column", "column_list")}
    return f"{config.type} {told}"


def main(folder: str) -> None:
    begun = time.perf_counter()
    columns = ["order_id", "email", "sku", "country", "currency", "status", "quantity", "price", "weight", "longitude",
               "latitude", "customer_id", "basket", "line", "created"]  # fmt: skip
    rows = pd.read_parquet(f"{folder}/orders.parquet", columns=columns)
    customers = pd.read_parquet(f"{folder}/customers.parquet")["customer_id"].tolist()
    context = gx.get_context(mode="ephemeral")
    batch = (
        context.data_sources.add_pandas("orders")
        .add_dataframe_asset("orders")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": rows})
    )
    e = gx.expectations
    named = {
        "null": [
            e.ExpectColumnValuesToNotBeNull(column="order_id"),
            e.ExpectColumnValuesToNotBeNull(column="email"),
        ],
        "unique": [e.ExpectColumnValuesToBeUnique(column="order_id")],
        "pattern": [e.ExpectColumnValuesToMatchRegex(column="sku", regex="^SKU-[0-9]{6}$")],
        "country": [
            e.ExpectColumnValuesToBeInSet(column="country", value_set=["FR", "DE", "ES", "IT", "BE"])
        ],
        "currency": [e.ExpectColumnValuesToBeInSet(column="currency", value_set=["EUR", "USD", "GBP"])],
        "status": [
            e.ExpectColumnValuesToBeInSet(column="status", value_set=["open", "paid", "shipped", "closed"])
        ],
        "quantity": [e.ExpectColumnValuesToBeBetween(column="quantity", max_value=98)],
        "price": [e.ExpectColumnValuesToBeBetween(column="price", max_value=999)],
        "weight": [e.ExpectColumnValuesToBeBetween(column="weight", min_value=0)],
        "longitude": [e.ExpectColumnValuesToBeBetween(column="longitude", min_value=-180)],
        "latitude": [e.ExpectColumnValuesToBeBetween(column="latitude", max_value=90)],
        "foreign": [e.ExpectColumnValuesToBeInSet(column="customer_id", value_set=customers)],
        "duplicate": [e.ExpectCompoundColumnsToBeUnique(column_list=["basket", "line"])],
    }
    suite = gx.ExpectationSuite("orders", [one for ones in named.values() for one in ones])
    results = batch.validate(suite, result_format="BASIC")
    rows["created"].max()
    took = time.perf_counter() - begun
    # The results come in an order of their own.
    found = {_key(one.expectation_config): one.result["unexpected_count"] for one in results.results}
    counts = {name: sum(found[_key(one.configuration)] for one in ones) for name, ones in named.items()}
    halves = {"unique", "duplicate"}
    counts = {name: count // 2 if name in halves else count for name, count in counts.items()}
    kept = ("null", "unique", "pattern", "country", "quantity", "price", "foreign", "duplicate")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": took, "peak_mb": peak, "counts": {name: counts[name] for name in kept}}))


main(sys.argv[1])
