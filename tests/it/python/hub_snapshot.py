"""Reads a repository from a model hub with huggingface_hub, a client that is not ours.

Usage: hub_snapshot.py ENDPOINT REPO REVISION
Prints one JSON object: the head's commit, the listing, SHA-256 of every downloaded file, and the
names of the errors for things that are not there.
"""

import hashlib
import json
import pathlib
import sys
import tempfile

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import HfHubHTTPError


def error_name(call):
    try:
        call()
    except HfHubHTTPError as error:
        return type(error).__name__
    return None


def main(endpoint, repo, revision):
    api = HfApi(endpoint=endpoint, token=False)
    listing = {}
    for entry in api.list_repo_tree(repo, revision=revision, recursive=True):
        lfs = getattr(entry, "lfs", None)
        listing[entry.path] = {
            "size": getattr(entry, "size", None),
            "blob_id": getattr(entry, "blob_id", None),
            "sha256": lfs.sha256 if lfs else None,
            "pointer_size": lfs.pointer_size if lfs else None,
        }
    metadata = {}
    for name in ("config.json", "model.safetensors"):
        url = hf_hub_url(repo, name, revision=revision, endpoint=endpoint)
        found = get_hf_file_metadata(url, token=False)
        metadata[name] = [found.commit_hash, found.etag, found.size]
    with tempfile.TemporaryDirectory() as cache:
        folder = pathlib.Path(
            snapshot_download(repo, revision=revision, endpoint=endpoint, cache_dir=cache, token=False)
        )
        files, git = {}, {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, data = path.relative_to(folder).as_posix(), path.read_bytes()
            files[name] = hashlib.sha256(data).hexdigest()
            git[name] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    missing = "0" * 40
    absent = hf_hub_url(repo, "absent.json", revision=revision, endpoint=endpoint)
    print(
        json.dumps(
            {
                "head": api.model_info(repo).sha,
                "listing": listing,
                "metadata": metadata,
                "files": files,
                "git": git,
                "errors": [
                    error_name(lambda: api.model_info("nobody/nothing")),
                    error_name(lambda: api.model_info(repo, revision=missing)),
                    error_name(lambda: get_hf_file_metadata(absent, token=False)),
                ],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
