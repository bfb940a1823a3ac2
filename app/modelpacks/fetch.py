"""Downloads a pack to this machine before the service uses it: `foxhound models fetch sd15`.

May be interrupted at any moment and repeated: complete files with the right hash are kept, partial ones continue, and
the manifest is written last. Runs in the CLI; the service never calls it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import httpx
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import build_hf_headers

from app.modelpacks.convert import convert_state_dict, is_converted_from
from app.modelpacks.download import TIMEOUT_S, OnProgress, RemoteFile, download
from app.modelpacks.pack import MANIFEST, PARTS, ModelPack, PackError, describe_file, read_pack, verify_file
from app.modelpacks.sd15 import SD15_SOURCES, TORCHVISION_URL, HubSource, PackSources, TorchvisionSource

# Subfolder for pickles until they are converted.
DOWNLOADS = ".downloads"


def fetch_pack(
    name: str,
    models_dir: Path,
    on_progress: OnProgress,
    *,
    sources: PackSources = SD15_SOURCES,
    hub_url: str | None = None,
    torchvision_url: str = TORCHVISION_URL,
) -> ModelPack:
    """Download, check and convert all files of a pack.

    Args:
        name: `sd15`; the demo pack needs no fetching.
        models_dir: The folder in which the pack gets a folder of its name.
        on_progress: Called with file name, bytes so far, and bytes in total where known.
        sources: The files of the pack.
        hub_url: Another hub; default: the setting of huggingface_hub.
        torchvision_url: URL below which torchvision's state dicts are.

    Raises:
        PackError: A file could not be fetched; repeating the command continues.
    """
    if name != sources.facts["name"]:
        raise PackError(f"There is nothing to fetch for that pack. The pack to fetch is {sources.facts['name']}.")
    folder = models_dir / name
    if _is_complete(folder, sources):
        return read_pack(folder)
    with httpx.Client(headers=build_hf_headers()) as hub_client, httpx.Client() as client:
        for hub in sources.hub:
            Hub(hub, hub_url or constants.ENDPOINT, hub_client).fetch(folder, on_progress)
        for source in sources.torchvision:
            _fetch_torchvision(client, torchvision_url, source, folder, on_progress)
    shutil.rmtree(folder / DOWNLOADS, ignore_errors=True)
    _write_manifest(folder, sources)
    return read_pack(folder)


def _is_complete(folder: Path, sources: PackSources) -> bool:
    """Whether the pack matches its manifest; if not, delete the manifest and all wrong files."""
    try:
        pack = read_pack(folder)
    except PackError:
        return False
    is_complete = pack.revision == sources.facts["revision"] and bool(pack.files)
    for file in pack.files:
        try:
            verify_file(pack, file)
        except PackError:
            is_complete = False
            (folder / file.path).unlink(missing_ok=True)
    if not is_complete:
        (folder / MANIFEST).unlink()
    return is_complete


@dataclass(frozen=True, slots=True)
class Hub:
    """One repository of the hub at its pinned commit."""

    source: HubSource
    url: str
    client: httpx.Client

    def fetch(self, folder: Path, on_progress: OnProgress) -> None:
        """Download its files into their part of the pack.

        Raises:
            PackError: A file could not be fetched; repeating continues.
        """
        files = {file.name: file for file in self._list_files()}
        for pattern in self.source.files:
            matching = [file for name, file in files.items() if fnmatchcase(name, pattern)]
            for file in matching:
                download(self.client, file, folder / self.source.part / file.name, on_progress)
            if not matching:
                self._fetch_pickle(pattern, files, folder, on_progress)

    def _fetch_pickle(self, name: str, files: dict[str, RemoteFile], folder: Path, on_progress: OnProgress) -> None:
        pickle = files.get(self.source.pickles.get(name, ""))
        if pickle is None:
            raise PackError(f"{self.source.repo_id} has no {name} at the pinned revision.")
        target = folder / self.source.part / name
        origin = f"{self.source.repo_id}@{self.source.revision}/{pickle.name}"
        if not is_converted_from(target, origin):
            download(self.client, pickle, folder / DOWNLOADS / pickle.name, on_progress)
            convert_state_dict(folder / DOWNLOADS / pickle.name, target, origin)

    def _list_files(self) -> Iterator[RemoteFile]:
        """Request the commit's file names, sizes and hashes: SHA-256 of large files, git's blob hash of small ones."""
        repo_id, revision = self.source.repo_id, self.source.revision
        page: str | None = f"{self.url}/api/models/{repo_id}/tree/{revision}?recursive=true"
        try:
            while page is not None:
                response = self.client.get(page, timeout=TIMEOUT_S, follow_redirects=True).raise_for_status()
                for entry in response.json():
                    if entry["type"] == "file":
                        yield RemoteFile(
                            name=entry["path"],
                            url=hf_hub_url(repo_id, entry["path"], revision=revision, endpoint=self.url),
                            size=entry["size"],
                            hash_kind="sha256" if "lfs" in entry else "git_blob",
                            hash_prefix=entry["lfs"]["oid"] if "lfs" in entry else entry["oid"],
                        )
                page = response.links.get("next", {}).get("url")
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise PackError(f"The hub did not list {repo_id}; repeat the command later.") from error


def _fetch_torchvision(
    client: httpx.Client, url: str, source: TorchvisionSource, folder: Path, on_progress: OnProgress
) -> None:
    """Download one of torchvision's state dicts into its part of the pack, as safetensors with a `config.json`."""
    target = folder / source.part / "model.safetensors"
    if not is_converted_from(target, source.file_name):
        file = RemoteFile(
            name=source.file_name,
            url=f"{url}/{source.file_name}",
            size=None,
            hash_kind="sha256",
            hash_prefix=source.file_name.removesuffix(".pth").rpartition("-")[2],
        )
        download(client, file, folder / DOWNLOADS / source.file_name, on_progress)
        convert_state_dict(folder / DOWNLOADS / source.file_name, target, source.file_name)
    (folder / source.part / "config.json").write_text(json.dumps(source.config, indent=2))


def _write_manifest(folder: Path, sources: PackSources) -> None:
    paths = sorted(path for part in PARTS for path in (folder / part).rglob("*") if path.is_file())
    files = [asdict(describe_file(folder, path)) for path in paths if path.suffix != ".part"]
    part = folder / f"{MANIFEST}.part"
    part.write_text(json.dumps({**sources.facts, "files": files}, indent=2))
    os.replace(part, folder / MANIFEST)
