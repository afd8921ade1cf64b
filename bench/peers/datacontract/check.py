"""datacontract-cli on the orders: `check.py FOLDER` prints seconds, peak memory and counts as JSON."""

import json
import logging
import resource
import sys
import time

from datacontract.data_contract import DataContract

logging.disable(logging.WARNING)
KEYS = {
    "orders__order_id__field_unique": "unique",
    "orders__sku__field_regex": "pattern",
    "orders__country__field_invalid_values": "country",
    "orders__quantity__field_maximum": "quantity",
    "orders__price__field_maximum": "price",
}


def main(folder: str) -> None:
    begun = time.perf_counter()
    run = DataContract(data_contract_file=f"{folder}/theirs.yaml", server="files", schema_name="all").test()
    took = time.perf_counter() - begun
    if "--all" in sys.argv:
        for check in run.checks:
            print(check.key, check.result, check.reason, check.diagnostics, file=sys.stderr)
    counts = {"null": 0}
    for check in run.checks:
        found = (check.diagnostics or {}).get("value")
        if found is None:
            continue
        if check.key in ("orders__order_id__field_required", "orders__email__field_required"):
            counts["null"] += int(found)
        elif check.key in KEYS:
            counts[KEYS[check.key]] = int(found)
        elif check.key.endswith("__field_relationships"):
            counts["foreign"] = int(found)
        elif check.type == "model_duplicate_values":
            counts["duplicate"] = int(found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": took, "peak_mb": peak, "counts": counts}))


main(sys.argv[1])
