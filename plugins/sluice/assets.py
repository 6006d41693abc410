"""The assets that pipelines produce and wait for: one an entity, updated by every publish."""

from __future__ import annotations

from airflow.sdk import Asset

from include.contracts import CONTRACTS

ENTITIES: dict[str, Asset] = {
    contract.name: Asset(name=contract.table, uri=f"x-sluice://app_db/app/{contract.name}", group="app")
    for contract in CONTRACTS
}

SALES = Asset(name="warehouse.fact_sales", uri="x-sluice://warehouse_db/warehouse/fact_sales", group="warehouse")
"""The star schema and its marts, which a load publishes together."""
