"""Files in which papers publish the data they measure on, as interactions. Ids are numbers."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matinee.errors import InvalidInput, NotFound
from matinee.schema import Interactions

Numbers = npt.NDArray[np.int64]


def read_user_split(train: Path, test: Path) -> tuple[Interactions, Interactions]:
    """The split of a file pair as LightGCN publishes it: a line is a user and the items of that user.

    He et al., "LightGCN", 2020. The files state no times: every time is 0, and the order of a line is no
    order in time.

    Args:
        train: text, gzip where its name ends in .gz; `test` likewise.

    Returns:
        Both parts in one vocabulary.

    Raises:
        NotFound: a file is missing.
        InvalidInput: a line holds something that is not a number from 0 on, or a pair stands twice.
    """
    parts = [_read_lines(path) for path in (train, test)]
    member, title = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    _once(member, title, f"{train} and {test}")
    whole = _interactions(member, title, np.zeros(len(member), np.int64))
    rows = np.arange(len(whole))
    known = rows < len(parts[0][0])
    return whole.take(known), whole.take(~known)


def read_sequences(path: Path) -> Interactions:
    """Pairs in time order as SASRec publishes them: a line is a user and an item, numbered from 1.

    Kang and McAuley, "Self-attentive sequential recommendation", 2018. The file orders each user's items and
    states no times: an interaction's time is its place in its user's sequence, so all users begin at 0.

    Args:
        path: text, gzip where its name ends in .gz.

    Raises:
        NotFound: the file is missing.
        InvalidInput: a line is not two numbers from 0 on, or a pair stands twice.
    """
    pairs = [_numbers(line, path, number) for number, line in enumerate(_text(path).splitlines(), 1)]
    if wrong := next((number for number, pair in enumerate(pairs, 1) if len(pair) != 2), None):
        raise InvalidInput(f"{path} line {wrong}: {len(pairs[wrong - 1])} numbers; two are accepted")
    member, title = np.array(pairs, np.int64).reshape(-1, 2).T
    _once(member, title, str(path))
    order = np.argsort(member, kind="stable")
    place = np.empty(len(member), np.int64)
    place[order] = np.arange(len(member)) - np.searchsorted(member[order], member[order])
    in_time = np.argsort(place, kind="stable")
    return _interactions(member[in_time], title[in_time], place[in_time])


def _read_lines(path: Path) -> tuple[Numbers, Numbers]:
    lines = [_numbers(line, path, number) for number, line in enumerate(_text(path).splitlines(), 1)]
    held = [line for line in lines if len(line)]
    member = np.repeat([line[0] for line in held], [len(line) - 1 for line in held])
    return member.astype(np.int64), np.concatenate([np.zeros(0, np.int64), *(line[1:] for line in held)])


def _text(path: Path) -> str:
    try:
        held = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} is missing") from None
    return (gzip.decompress(held) if path.suffix == ".gz" else held).decode()


def _numbers(line: str, path: Path, number: int) -> Numbers:
    try:
        found = np.array(line.split(), np.int64)
    except ValueError:
        found = np.array([-1])
    if (found < 0).any():
        raise InvalidInput(f"{path} line {number}: {line[:40]!r}; numbers from 0 on are accepted")
    return found


def _once(member: Numbers, title: Numbers, where: str) -> None:
    keys, first = np.unique(member * (title.max(initial=0) + 1) + title, return_index=True)
    if len(keys) < len(member):
        row = np.setdiff1d(np.arange(len(member)), first)[0]
        raise InvalidInput(f"{where}: user {member[row]} and item {title[row]} stand together twice")


def _interactions(member: Numbers, title: Numbers, time: Numbers) -> Interactions:
    members, row = np.unique(member, return_inverse=True)
    titles, column = np.unique(title, return_inverse=True)
    return Interactions(
        member_ids=[str(number) for number in members],
        title_ids=[str(number) for number in titles],
        member=row.astype(np.int32),
        title=column.astype(np.int32),
        time=time,
        value=np.full(len(member), np.nan, np.float32),
    )
