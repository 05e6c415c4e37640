"""Records that processes append, and what is known after a kill."""

from __future__ import annotations

import json

from zss_d2.collection.state.journal import DONE, FAILED, Journal, Records


def record(name: str, status: str = DONE, **content: object) -> dict:
    return {"name": name, "status": status, "source": f"/{name}", "stamp": [1, 2], **content}


def test_the_last_record_of_an_image_counts(tmp_path):
    for number, status in enumerate((FAILED, DONE)):
        journal = Journal(tmp_path / f"{number}.jsonl")
        journal.append(record("b", status, area=number))
        journal.append(record(f"ü\n{number}"))
        journal.close()
    records = Records([tmp_path / "0.jsonl", tmp_path / "1.jsonl"])
    assert {name: x.status for name, x in records.entries.items()} == dict.fromkeys(
        ["b", "ü\n0", "ü\n1"], DONE
    )
    lines = list(map(json.loads, records.lines()))
    assert [line["name"] for line in lines] == ["b", "ü\n0", "ü\n1"]
    assert lines[0]["area"] == 1


def test_what_is_no_record_counts_as_absent(tmp_path):
    whole = json.dumps(record("a")).encode() + b"\n"
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xff\n[]\n{}\n" + whole + whole.replace(b'"a"', b'"b"')[:-1])
    assert set(Records([path]).entries) == {"a"}


def test_failures_are_found_and_forgotten(tmp_path):
    journal = Journal(tmp_path / "x.jsonl")
    for name in "dcb":
        journal.append(record(name, FAILED))
    journal.append(record("a"))
    journal.close()
    records = Records([journal.path])
    assert records.first(FAILED)["name"] == "b"
    records.forget(FAILED, {"c", "x"})
    assert set(records.entries) == {"a", "c"}
    records.forget(FAILED, ())
    assert records.first(FAILED) is None


def test_nothing_is_written_where_nothing_is_noted(tmp_path):
    Journal(tmp_path / "x.jsonl").close()
    assert not list(tmp_path.iterdir())
