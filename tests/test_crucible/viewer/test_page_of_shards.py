"""The whole page on a trajectory whose blocks are shards with a label before the index, as format 2 has them."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from waiting import wait_until
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec, ZstdCodec

import store
from crucible.viewer.export import export_page
from crucible.viewer.files import range_of

ASKED = []
"""Path and range of each request."""
LABEL = b"who wrote this file, and up to which step"


class Ranged(http.server.SimpleHTTPRequestHandler):
    """A static host that answers ranges."""

    def do_GET(self):
        said = self.headers.get("Range")
        ASKED.append((self.path, said))
        if said is None:
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        part = range_of(said, len(data))
        body = data[part.start : part.stop]
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """An export whose arrays are written anew as shards: blocks of 128 steps, tiles of 16 tokens."""
    folder = export_page(run, tmp_path_factory.mktemp("shards") / "page")
    root = folder / "trajectory.zarr"
    document = json.loads((root / "zarr.json").read_text())
    arrays = document["consolidated_metadata"]["metadata"]
    ds = store.open_trajectory(folder).load()
    for name in ("W", "displacement_l2", "centroid", "loss"):
        values = ds[name].values
        shutil.rmtree(root / name)
        arrays[name] = write_shards(root / name, values) | {"attributes": arrays[name]["attributes"]}
    (root / "zarr.json").write_text(json.dumps(document))
    return folder


def write_shards(path, values):
    inner = (128, 16, *values.shape[2:])[: values.ndim]
    shard = (128, -(-values.shape[1] // 16) * 16, *values.shape[2:]) if values.ndim > 1 else inner
    order = [TransposeCodec(order=(*range(1, values.ndim), 0))] if values.ndim > 1 else []
    codecs = [*order, BytesCodec(), ZstdCodec(level=1), Crc32cCodec()]
    array = zarr.create_array(
        path, shape=values.shape, dtype=values.dtype, chunks=shard, filters=None, compressors=None,
        serializer=ShardingCodec(chunk_shape=inner, codecs=codecs, index_codecs=[BytesCodec(), Crc32cCodec()]),
        chunk_key_encoding={"name": "default", "separator": "."}, config={"write_empty_chunks": True},
    )  # fmt: skip
    array[...] = values
    size = 16 * int(np.prod([s // i for s, i in zip(shard, inner, strict=True)])) + 4
    for file in path.glob("c*"):
        data = file.read_bytes()
        file.write_bytes(data[:-size] + LABEL + data[-size:])
    return json.loads((path / "zarr.json").read_text())


@pytest.fixture(scope="module")
def published(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Ranged, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def test_a_sharded_run_is_shown_and_one_token_is_read_by_ranges(browser, published, rows):
    ASKED.clear()

    def whole_files():
        return sorted(path.split("?")[0] for path, said in ASKED if said is None and "/W/c" in path)

    browser.open(f"{published}#step=128&token=13")
    wait_until(lambda: len(whole_files()) == 3)  # a file that is called off for another is fetched again
    for step in (128, 127, 0, 300, 256, 255):
        browser.go(step)
        bits = [int(word, 16) for word in browser.data("bits")["bits"].split()]
        assert bits == rows[step, 5].tolist(), step
        assert browser.text("now-step") == f"step {step}"
    # each file of the cloud once, whole
    assert whole_files() == [f"/trajectory.zarr/W/c.{block}.0.0" for block in range(3)]
    ranges = [said for path, said in ASKED if said is not None]
    assert "bytes=-52" in ranges  # the index: three entries and their checksum
    assert len(ranges) >= 6


def test_its_cloud_and_raster_are_those_of_the_run_in_chunks(browser, published, served):
    seen = []
    for url in (published, served):
        browser.open(f"{url}#step=140&token=13")
        browser.wait("document.getElementById('cloud').dataset.step === '140'")
        browser.wait("document.getElementById('now-loss').textContent !== ''")
        seen.append([browser.pixels(name).astype(int) for name in ("cloud", "raster", "timeline", "bits")])
    for one, other in zip(*seen, strict=True):
        assert np.abs(one - other).mean() < 0.5
