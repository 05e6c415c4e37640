import hashlib
import json

from zss_d2.evaluation import read_results, write_results
from zss_d2.evaluation.results import collect_provenance


def test_results_are_plain_json_and_nan_becomes_null(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, {"set": {"mIoU": 12.5, "hIoU": float("nan")}}, {"seed": 3})
    json.loads(path.read_text(), parse_constant=lambda text: pytest_fail(text))
    assert read_results(path) == {"set": {"mIoU": 12.5, "hIoU": None}, "provenance": {"seed": 3}}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def pytest_fail(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def test_provenance_identifies_the_run(make_cfg, tmp_path):
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"weights")
    cfg = make_cfg("SEED", 7)
    provenance = collect_provenance(cfg, str(checkpoint), 25)
    assert provenance["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert (provenance["seed"], provenance["iteration"], provenance["device"]) == (7, 25, "cpu")
    assert provenance["protocol"]["setting"] == "inductive"
    other = collect_provenance(make_cfg("SEED", 8), "", None)
    assert other["config_sha256"] != provenance["config_sha256"]
    assert other["checkpoint_sha256"] is None
