"""What the statements of a program share: bytes that a loop's body touches, and who else uses a buffer inside of it.

The footprints of all statements are rows of one array, those of a statement by buffer and depth. Which rows are about the
same buffer in the same body is a table of the template, and the rest one native loop for all of its programs.

    shared = shared_buffers((("C", ("C/i", "C/j", "C/k"), (("C", 4), ("A", 4), ("B", 4))),))
    footprint, touched_bytes = shared.arrays(programs)
    shared.by_buffer(footprint, "C")[b, d] = ...       # of each statement
    body_bytes, least = shared.link(footprint, touched_bytes)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

from ansor_py.cost_model.native_loops import Floats, Integers, native

# A statement: its name, the variables of all loops around it, and its buffers with the bytes of an element.
Statement = tuple[str, tuple[str, ...], tuple[tuple[str, int], ...]]


@lru_cache(maxsize=4096)
def shared_buffers(statements: tuple[Statement, ...]) -> SharedBuffers:
    """What these statements share. Kept, as it is the same for all programs of a template in all generations."""
    return SharedBuffers(statements)


class SharedBuffers:
    """Which buffers statements share, and inside which loops.

    `company` is the number of outer loops of a statement that run around others, too, and `sharers` int64[B, D] how many
    statements use each of its buffers inside a depth.
    """

    def __init__(self, statements: Sequence[Statement]) -> None:
        loops = {name: variables for name, variables, _ in statements}
        uses = {name: buffers for name, _, buffers in statements}
        self._shapes = {name: (len(uses[name]), len(loops[name]) + 1) for name in loops}
        rows = np.cumsum([0, *(buffers * depths for buffers, depths in self._shapes.values())]).tolist()
        depths = np.cumsum([0, *(depths for _, depths in self._shapes.values())]).tolist()
        self._first_row, self._first_depth = dict(zip(loops, rows, strict=False)), dict(zip(loops, depths, strict=False))
        self._size = rows[-1], depths[-1]
        self.company = dict.fromkeys(loops, 0)
        self.sharers = {name: np.ones(shape, dtype=np.int64) for name, shape in self._shapes.items()}
        users: list[tuple[int, int]] = []  # of a buffer in a body: its number among those, and the row of a statement
        buffers: list[tuple[int, int]] = []  # the body, and bytes of an element
        members: list[tuple[int, int]] = []  # the body, and the row of a statement by depth
        for body, (depth, names) in enumerate(_shared_bodies(loops)):
            found: dict[str, list[tuple[str, int]]] = {}
            for name in names:
                self.company[name] = max(self.company[name], depth)
                members.append((body, self._first_depth[name] + depth))
                for number, (buffer, _) in enumerate(uses[name]):
                    found.setdefault(buffer, []).append((name, number))
            for items in found.values():
                for name, number in items:
                    self.sharers[name][number, depth] = len(items)
                    users.append((len(buffers), self._first_row[name] + number * self._shapes[name][1] + depth))
                name, number = items[0]
                buffers.append((body, uses[name][number][1]))
        self._users, self._buffers, self._members = map(_table, (users, buffers, members))

    def arrays(self, programs: int) -> tuple[Floats, Floats]:
        """Rows by buffer and depth, and rows by depth, of all statements."""
        return np.empty((self._size[0], programs)), np.empty((self._size[1], programs))

    def by_buffer(self, rows: Floats, name: str) -> Floats:
        """The rows [B, D, n] of a statement."""
        shape, first = self._shapes[name], self._first_row[name]
        return rows[first : first + shape[0] * shape[1]].reshape(*shape, -1)

    def by_depth(self, rows: Floats, name: str) -> Floats:
        """The rows [D, n] of a statement."""
        first = self._first_depth[name]
        return rows[first : first + self._shapes[name][1]]

    def link(self, footprint: Floats, touched_bytes: Floats) -> tuple[Floats, Floats]:
        """Bytes that all statements inside a depth touch, rows by depth, and the least footprint of one that uses a buffer."""
        body_bytes, least = touched_bytes.copy(), footprint.copy()
        _link(footprint, self._users, self._buffers, self._members, body_bytes, least)
        return body_bytes, least


def _table(rows: Sequence[tuple[int, int]]) -> Integers:
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _shared_bodies(loops: Mapping[str, Sequence[str]]) -> Iterator[tuple[int, list[str]]]:
    """Depth and statements of the bodies that hold several: of the whole program, and of loops."""
    members: dict[str | None, tuple[int, list[str]]] = {None: (0, list(loops))}
    for name, around in loops.items():
        for position, variable in enumerate(around):
            members.setdefault(variable, (position + 1, []))[1].append(name)
    return ((depth, names) for depth, names in members.values() if len(names) > 1)


@native
def _link(footprint: Floats, users: Integers, buffers: Integers, members: Integers, body_bytes: Floats, least: Floats) -> None:
    """Overwrite the rows of bodies and buffers that are shared; a buffer is touched as often as where most of it is."""
    programs = footprint.shape[1]
    for member in range(len(members)):
        for program in range(programs):
            body_bytes[members[member, 1], program] = 0.0
    first = member = 0
    for buffer in range(len(buffers)):
        end = first
        while end < len(users) and users[end, 0] == buffer:
            end += 1
        while members[member, 0] < buffers[buffer, 0]:
            member += 1
        for program in range(programs):
            low = high = footprint[users[first, 1], program]
            for user in range(first + 1, end):
                low = min(low, footprint[users[user, 1], program])
                high = max(high, footprint[users[user, 1], program])
            for user in range(first, end):
                least[users[user, 1], program] = low
            body_bytes[members[member, 1], program] += high * buffers[buffer, 1]
        first = end
    for member in range(1, len(members)):
        if members[member, 0] == members[member - 1, 0]:
            for program in range(programs):
                body_bytes[members[member, 1], program] = body_bytes[members[member - 1, 1], program]
