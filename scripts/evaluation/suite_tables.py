"""The tables of each suite."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from scripts.evaluation import edges, learning, tables, varied
from scripts.evaluation.case import Row
from scripts.evaluation.costs import cost_tables, essence_table

TABLES: Mapping[str, Callable[[Sequence[Row]], Iterator[tables.Table]]] = {
    "load": lambda rows: cost_tables(rows, "load"),
    "noise": lambda rows: chain(cost_tables(rows, "noise"), essence_table(rows)),
    varied.SUITE: varied.varied_table,
    edges.SUITE: edges.edges_table,
    "lte": tables.link_table,
    "steps": tables.change_table,
    "caps": tables.cap_table,
    "sparse": tables.sparse_table,
    "ablation": tables.ablation_table,
    learning.SUITE: learning.learning_table,
}


def suite_tables(rows: Sequence[Row]) -> Iterator[tables.Table]:
    """Yields the tables of every suite that has rows."""
    for (suite,), of_suite in tables.group(rows, "suite").items():
        yield from TABLES[str(suite)](of_suite)
