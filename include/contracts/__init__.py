"""One file an entity. Every contract of every module here is found, and everything else follows from it.

They are looked for when somebody first asks, not when this package is imported: a contract that cannot work stops what
needs the contracts, and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from include.contracts.contract import Contract

    CONTRACTS: tuple[Contract, ...]
    BY_NAME: dict[str, Contract]


def __getattr__(name: str) -> tuple[Contract, ...] | dict[str, Contract]:
    """CONTRACTS and BY_NAME. Raises what a contract's module raises, and ContractError for two of one table."""
    if name not in ("CONTRACTS", "BY_NAME"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = _found()
    globals().update(CONTRACTS=found, BY_NAME={contract.name: contract for contract in found})
    return globals()[name]  # type: ignore[no-any-return]  # one of the two


def _found() -> tuple[Contract, ...]:
    from include.contracts.contract import Contract, ContractError

    modules = sorted(module.name for module in iter_modules(__path__))
    declared = [value for module in modules for value in vars(import_module(f"{__name__}.{module}")).values()]
    found = tuple({id(value): value for value in declared if isinstance(value, Contract)}.values())
    tables = [name for each in found for name in (each.name, *(child.table for child in each.children.values()))]
    if twice := sorted({name for name in tables if tables.count(name) > 1}):
        raise ContractError(f"more than one contract has the table {twice[0]}: give each its own name")
    return found
