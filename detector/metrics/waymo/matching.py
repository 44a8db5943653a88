"""The assignment of predictions to true boxes, tie for tie as the official matcher decides it.

The matcher (`metrics/matcher.cc`, `metrics/hungarian.cc` of waymo-open-dataset 1.6) maximises the
sum of IoUs, rounded to millionths, by Kuhn and Munkres' algorithm on a full square matrix, anew
for every score cutoff. Nearly all of that matrix is zero, so here the same search runs over the
pairs that may match alone:

- Rows (predictions) are assigned one after another; each grows an alternating tree breadth first,
  columns in ascending order, until it meets a free column.
- A row whose label has sunk to zero is joined to every free column by an edge of weight zero, and
  the lowest of them ends the search. Such a pairing counts for nothing, but it occupies the
  column, and that decides ties; so these pairings are kept, also with columns past the true
  boxes, which stand for "no box".
"""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def assign(rows, edge_offsets, edge_columns, edge_weights, columns, work, column_of_row):
    """Assigns a column to each row.

    Args:
        rows: (R,) which rows of the edge table take part, in order.
        edge_offsets: (all rows + 1,) where each row's edges start in the next two.
        edge_columns, edge_weights: (E,) int64; columns ascend within a row, weights exceed zero.
        columns: how many columns there are.
        work: (7, >= max(R, columns)) int64 working space.
        column_of_row: (>= R,) int64, out; `columns` or more means "no box".
    """
    row_labels, column_labels, row_of_column, in_tree = work[0], work[1], work[2], work[3]
    parents, tree_rows, tree_columns = work[4], work[5], work[6]
    for column in range(max(len(rows), columns)):
        column_labels[column] = 0
        row_of_column[column] = -1
        in_tree[column] = -1
    for row in range(len(rows)):
        row_labels[row] = 0
        column_of_row[row] = -1
        for edge in range(edge_offsets[rows[row]], edge_offsets[rows[row] + 1]):
            row_labels[row] = max(row_labels[row], edge_weights[edge])

    first_free = 0
    for root in range(len(rows)):
        tree_rows[0] = root
        row_count, column_count, place = 1, 0, 0
        last_row, last_column = -1, -1
        while last_row < 0:
            if place == row_count:
                # No free column within reach: sink the tree's labels until one more edge is tight.
                step = row_labels[root]
                for index in range(row_count):
                    row = tree_rows[index]
                    step = min(step, row_labels[row])
                    for edge in range(edge_offsets[rows[row]], edge_offsets[rows[row] + 1]):
                        column = edge_columns[edge]
                        if in_tree[column] != root:
                            slack = row_labels[row] + column_labels[column] - edge_weights[edge]
                            step = min(step, slack)
                for index in range(row_count):
                    row_labels[tree_rows[index]] -= step
                for index in range(column_count):
                    column_labels[tree_columns[index]] += step
                place = 0
            row = tree_rows[place]
            place += 1
            if row_labels[row] == 0:
                while row_of_column[first_free] >= 0:
                    first_free += 1
                last_row, last_column = row, first_free
                break
            for edge in range(edge_offsets[rows[row]], edge_offsets[rows[row] + 1]):
                column = edge_columns[edge]
                tight = row_labels[row] + column_labels[column] == edge_weights[edge]
                if not tight or in_tree[column] == root:
                    continue
                if row_of_column[column] < 0:
                    last_row, last_column = row, column
                    break
                in_tree[column] = root
                parents[column] = row
                tree_columns[column_count] = column
                column_count += 1
                tree_rows[row_count] = row_of_column[column]
                row_count += 1

        # Swap the assignments along the path from the free column back to the root.
        row, column = last_row, last_column
        while row != root:
            before = column_of_row[row]
            column_of_row[row], row_of_column[column] = column, row
            row, column = parents[before], before
        column_of_row[row], row_of_column[column] = column, row
