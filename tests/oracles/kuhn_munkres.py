"""Kuhn and Munkres' assignment on a full square matrix, in plain loops."""

from __future__ import annotations


def maximum_assignment(weights: list[list[int]]) -> list[int]:
    """Column of each row of a square matrix of whole numbers >= 0, with the largest sum.

    Ties fall as the textbook's breadth-first search meets them: rows in order, tree vertices in
    the order they joined, columns ascending.
    """
    size = len(weights)
    row_label = [max(row, default=0) for row in weights]
    column_label = [0] * size
    column_of, row_of = [-1] * size, [-1] * size

    def tight(row: int) -> list[int]:
        return [
            c for c in range(size) if row_label[row] + column_label[c] == weights[row][c]
        ]

    for root in range(size):
        rows, parent = [root], {}
        while True:
            reached = [(c, row) for row in rows for c in tight(row) if c not in parent]
            if not reached:
                step = min(
                    row_label[row] + column_label[c] - weights[row][c]
                    for row in rows
                    for c in range(size)
                    if c not in parent
                )
                for row in rows:
                    row_label[row] -= step
                for c in parent:
                    column_label[c] += step
                continue
            column, row = reached[0]
            parent[column] = row
            if row_of[column] >= 0:
                rows.append(row_of[column])
                continue
            while True:
                row = parent[column]
                before = column_of[row]
                column_of[row], row_of[column] = column, row
                if row == root:
                    break
                column = before
            break
    return column_of
