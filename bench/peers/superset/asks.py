"""What Apache Superset does with a database, by its own code: looks around, reads a sample, asks as SQL Lab does.

Run with the Python of an environment that has Superset: asks.py URI FOLDER; prints one JSON object.
Superset keeps its own tables in a file of the folder.
"""

import json
import os
import sys
from pathlib import Path


def main(uri: str, folder: str) -> None:
    config = Path(folder) / "superset_config.py"
    config.write_text(
        f"SECRET_KEY = 'for this test'\nSQLALCHEMY_DATABASE_URI = 'sqlite:///{folder}/superset.db'\n"
        "CONTENT_SECURITY_POLICY_WARNING = False\n"
    )
    os.environ |= {"SUPERSET_CONFIG_PATH": str(config), "SUPERSET_HOME": folder}
    from superset.app import create_app

    app = create_app()
    with app.app_context(), app.test_request_context():
        from flask_appbuilder import Model
        from superset.extensions import db

        Model.metadata.create_all(db.engine)
        print(json.dumps(asked(uri), default=str))


def asked(uri: str) -> dict:
    from superset.models.core import Database
    from superset.sql.parse import Table

    database = Database(database_name="boucle", sqlalchemy_uri=uri)
    spec = database.db_engine_spec
    features = Table("features", "silver")
    told = {
        "engine": spec.engine,
        "schemas": sorted(database.get_all_schema_names(catalog=None)),
        "tables": sorted(one[0] for one in database.get_all_table_names_in_schema(None, "silver")),
        "views": len(database.get_all_view_names_in_schema(None, "silver")),
        "columns": [[one["column_name"], str(one["type"])] for one in database.get_columns(features)],
        "comment": database.get_table_comment(features),
        "sample": len(database.get_df(database.select_star(features, limit=2), schema="silver")),
    }
    with database.get_inspector() as inspector:
        told["key"] = inspector.get_pk_constraint("features", "silver")["constrained_columns"]
    # A chart over time: each grain Superset offers, as its own template writes it.
    told["grains"] = 0
    for grain in spec.get_time_grains():
        bucket = grain.function.replace("{col}", '"at"')
        frame = database.get_df(
            f"SELECT {bucket} AS t, avg(value) AS v FROM silver.features GROUP BY 1 ORDER BY 1"
        )
        assert len(frame) > 0, grain
        told["grains"] += 1
    with database.get_raw_connection(schema="silver") as connection:  # as SQL Lab runs a statement
        cursor = connection.cursor()
        spec.execute(cursor, "SELECT machine, count(*) AS n FROM features GROUP BY 1 ORDER BY 1", database)
        told["lab"] = [list(row) for row in spec.fetch_data(cursor, 100)]
        cancelled = spec.get_cancel_query_id(cursor, None)
        told["cancel"] = cancelled is not None
        told["cost"] = bool(spec.estimate_statement_cost(database, "SELECT * FROM silver.features", cursor))
    try:
        database.get_df("SELECT nope FROM silver.features")
    except Exception as error:  # noqa: BLE001 - what the person sees
        told["mistake"] = spec.extract_error_message(error)
    return told


if __name__ == "__main__":
    main(*sys.argv[1:])
