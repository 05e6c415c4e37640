"""Weights from the network: found here, announced, fetched once, or given up with one line."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import open_clip
import pytest
import torch
from filelock import FileLock
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file

from tests.clip.weights.weight_files import tiny_clip
from zss_d2.clip import build_clip_towers
from zss_d2.clip.weights import download
from zss_d2.clip.weights.download import Wish, hub_file, names_on_hub, url_file
from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.errors import ZssError

WISH = Wish("KEY 'value'", "do something else")


class Server(BaseHTTPRequestHandler):
    """Gives the files of ``content``; notes every request."""

    content: dict[str, bytes]
    requests: list[str]
    missing_bytes = 0

    def do_GET(self) -> None:
        self.requests.append(self.path)
        body = self.content.get(self.path.partition("?")[0])
        self.send_response(200 if body is not None else 404)
        body = body or b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - self.missing_bytes])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[type[Server]]:
    """A running `Server`, its address as ``address``; downloads go to ``tmp_path / "cache"``."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    handler = type("Handler", (Server,), {"content": {}, "requests": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.address = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield handler
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def checkpoint(tmp_path) -> bytes:
    ZeroShotCheckpointer(torch.nn.Linear(2, 2), str(tmp_path)).save("weights", iteration=6)
    return (tmp_path / "weights.pth").read_bytes()


class TestAddresses:
    def test_a_checkpoint_is_fetched_once_and_announced(self, server, checkpoint, caplog):
        server.content["/a/model_final.pth"] = checkpoint
        for _ in range(2):
            model = torch.nn.Linear(2, 2)
            extra = ZeroShotCheckpointer(model).load(f"{server.address}/a/model_final.pth")
            assert extra["iteration"] == 6
        assert server.requests == ["/a/model_final.pth"]
        assert "asking 127.0.0.1 for it" in caplog.text
        assert re.search(r"downloading model_final.pth \(\d+ MiB\) from 127.0.0.1", caplog.text)

    def test_what_the_server_says_is_said(self, server):
        with pytest.raises(ZssError, match=r"127.0.0.1 answers 404 .*; give the path of a file"):
            ZeroShotCheckpointer(torch.nn.Linear(2, 2)).load(f"{server.address}/none.pth")

    def test_a_page_is_no_file_and_is_not_kept(self, server, checkpoint):
        address = f"{server.address}/model.pth"
        server.content["/model.pth"] = b"<html>log in</html>"
        with pytest.raises(ZssError, match="what comes is a web page"):
            url_file(address, WISH)
        server.content["/model.pth"] = checkpoint
        assert url_file(address, WISH).read_bytes() == checkpoint

    def test_half_a_file_is_not_kept(self, server, checkpoint, tmp_path):
        server.content["/model.pth"] = checkpoint
        server.missing_bytes = 10
        with pytest.raises(ZssError, match=r"KEY 'value': the connection ended after \d+ of \d+"):
            url_file(f"{server.address}/model.pth", WISH)
        assert not [p for p in (tmp_path / "cache").rglob("*") if p.name.endswith(("pth", "tmp"))]

    @pytest.mark.parametrize("address", ["http://127.0.0.1:1/x.pth", "https://no.invalid/x.pth"])
    def test_where_nobody_answers_it_is_given_up(self, server, address):
        with pytest.raises(ZssError, match="cannot be reached .*; do something else"):
            url_file(address, WISH)

    @pytest.mark.parametrize(
        "address",
        ["http://host", "http:///x.pth", "ftp://host/x.pth", "http://h/a/../../x.pth", "http://[x"],
    )
    def test_addresses_that_name_no_file_of_the_cache(self, server, address):
        with pytest.raises(
            ZssError, match="by http and https only|it names no file|it is no address"
        ):
            url_file(address, WISH)

    def test_a_server_that_says_nothing_is_not_waited_for(self, server, monkeypatch):
        monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
        monkeypatch.setattr(server, "do_GET", lambda _: time.sleep(1))
        with pytest.raises(ZssError, match="127.0.0.1 cannot be reached"):
            url_file(f"{server.address}/x.pth", WISH)


class TestHub:
    @pytest.fixture
    def hub(self, tmp_path, monkeypatch) -> dict[str, Path]:
        """Files of the hub by name; what is fetched of them is then in the cache, and in order."""
        there: dict[str, Path] = {}
        cache: dict[str, str] = {}

        def metadata(url: str) -> object:
            name = url.rsplit("/", 1)[1]
            if name not in there:
                raise EntryNotFoundError.__new__(EntryNotFoundError)
            return type("Metadata", (), {"size": 5 << 20})

        def fetch(repo: str, name: str, revision: str | None) -> str:
            cache[name] = str(there[name])
            return cache[name]

        monkeypatch.setattr(download, "get_hf_file_metadata", metadata)
        monkeypatch.setattr(download, "hf_hub_download", fetch)
        monkeypatch.setattr(
            download, "try_to_load_from_cache", lambda repo, name, revision: cache.get(name)
        )
        monkeypatch.setattr(download.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        return there

    def test_safetensors_are_taken_first(self, hub, caplog):
        hub["model.bin"] = Path("a")
        names = names_on_hub("model.bin")
        assert hub_file("some/repo", names, WISH) == Path("a")
        assert "KEY 'value': downloading model.bin (5 MiB) from " in caplog.text
        caplog.clear()
        assert hub_file("some/repo", names, WISH) == Path("a")
        assert not caplog.text

    def test_names_that_belong_together(self):
        assert names_on_hub("open_clip_pytorch_model.bin")[0] == "open_clip_model.safetensors"
        assert names_on_hub("pytorch_model.bin")[0] == "model.safetensors"
        assert names_on_hub("x.pth") == ("x.safetensors", "x.pth")
        assert names_on_hub("x.pt") == ("x.pt",)

    def test_nothing_there_is_said(self, hub):
        with pytest.raises(ZssError, match=r"has none of a.bin in some/repo; do something else"):
            hub_file("some/repo", ["a.bin"], WISH)

    def test_offline_is_said_without_a_try(self, hub, monkeypatch):
        monkeypatch.setattr(download.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(download, "get_hf_file_metadata", None)
        with pytest.raises(ZssError, match="HF_HUB_OFFLINE forbids"):
            hub_file("some/repo", ["a.bin"], WISH)

    def test_a_tag_without_network_is_one_line(self, hub, monkeypatch):
        def unreachable(url: str) -> None:
            raise OSError("Name or service not known " * 20)

        monkeypatch.setattr(download, "get_hf_file_metadata", unreachable)
        with pytest.raises(ZssError) as error:
            build_clip_towers("ViT-B-16", "laion400m_e32")
        message = str(error.value)
        assert len(message) <= 360  # of which the reason may take 80
        assert "MODEL.CLIP.PRETRAINED 'laion400m_e32': not on this machine" in message
        assert "cannot be reached" in message
        # Which file, from where, and what to do with it.
        assert "fetch open_clip_model.safetensors and open_clip_config.json of timm/" in message
        assert message.endswith("give the path here, or that of any weights of ViT-B-16")

    def test_a_tag_brings_activation_and_statistics(self, hub, tmp_path, monkeypatch):
        listed = {"hf_hub": "some/repo/", "quick_gelu": True, "mean": (0.1, 0.2, 0.3)}
        tags = {"toy": {**listed, "std": (0.4, 0.5, 0.6)}}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "zss-tiny", tags)
        clip = tiny_clip(quick_gelu=True)
        hub["open_clip_model.safetensors"] = tmp_path / "w.safetensors"
        save_file({k: v.clone() for k, v in clip.state_dict().items()}, tmp_path / "w.safetensors")
        towers = build_clip_towers("zss-tiny", "toy")
        assert torch.equal(towers.image.visual.proj, clip.visual.proj)
        assert (towers.identity.pretrained, towers.identity.quick_gelu) == ("toy", True)
        assert towers.pixel_mean == pytest.approx((25.5, 51, 76.5))
        assert towers.pixel_std == pytest.approx((102, 127.5, 153))

    def test_one_fetches_and_the_others_find_it(self, hub, monkeypatch, caplog):
        calls, fetch = [], download.hf_hub_download

        def slowly(*args: object, **kwargs: object) -> str:
            calls.append(args)
            time.sleep(0.3)
            return fetch(*args, **kwargs)

        monkeypatch.setattr(download, "hf_hub_download", slowly)
        hub["a.bin"] = Path("a")
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(hub_file("some/repo", ["a.bin"], WISH)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [Path("a")] * 3
        assert len(calls) == 1
        assert "another process downloads it, waiting" in caplog.text

    def test_waiting_has_an_end(self, hub, monkeypatch, tmp_path):
        monkeypatch.setattr(download, "_PATIENCE_S", 0.2)
        folder = tmp_path / "hub/.locks"
        folder.mkdir(parents=True)
        with (
            FileLock(folder / "some--repo.download.lock"),
            pytest.raises(ZssError, match="another process has been downloading it for"),
        ):
            hub_file("some/repo", ["a.bin"], WISH)

    def test_a_cache_that_cannot_be_locked_is_no_obstacle(self, hub, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setattr(download.constants, "HF_HUB_CACHE", str(tmp_path / "file"))
        hub["a.bin"] = Path("a")
        assert hub_file("some/repo", ["a.bin"], WISH) == Path("a")
