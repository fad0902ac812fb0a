"""What all tests share: one Spark session, where a test of the second engine is among those that run."""

from __future__ import annotations

import pytest

from fixtures_state import place, postgres  # noqa: F401  # for every test

QUICK = {
    # Thousands of small queries on tiny tables: compiling each takes longer than running it.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


@pytest.fixture(scope="session", autouse=True)
def one_spark_session(request: pytest.FixtureRequest) -> None:
    """Start the session all tests use, tuned for tiny tables; what queries mean is left as it is."""
    if not any(item.get_closest_marker("spark") for item in request.session.items):
        return
    from stillwatch.store.spark import session

    session("1GB", 2, settings=QUICK)
