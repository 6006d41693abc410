"""One file an entity. Every contract of every module here is found, and everything else follows from it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from include.contracts.contract import Contract, ContractError

CONTRACTS: tuple[Contract, ...] = tuple(
    {
        id(found): found
        for module in sorted(iter_modules(__path__), key=lambda module: module.name)
        for found in vars(import_module(f"{__name__}.{module.name}")).values()
        if isinstance(found, Contract)
    }.values()
)
BY_NAME: dict[str, Contract] = {contract.name: contract for contract in CONTRACTS}

_tables = [name for found in CONTRACTS for name in (found.name, *(child.table for child in found.children.values()))]
if twice := {name for name in _tables if _tables.count(name) > 1}:
    raise ContractError(f"more than one contract has the tables {', '.join(sorted(twice))}: give each its own name")
