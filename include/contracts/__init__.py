"""One file an entity. A new contract is imported here, and everything else follows from it."""

from __future__ import annotations

from include.contracts.contract import Contract
from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS

CONTRACTS: tuple[Contract, ...] = (CUSTOMERS, PRODUCTS, ORDERS)
BY_NAME: dict[str, Contract] = {contract.name: contract for contract in CONTRACTS}
