"""Records that processes append, and what is known after a kill."""

from __future__ import annotations

import json

import pytest

from zss_d2.collection.state.journal import DONE, FAILED, Journal, Records


def record(name: str, status: str = DONE, **content: object) -> dict:
    known = {"name": name, "status": status, "source": f"/{name}", "file_name": f"{name}.png"}
    of_done = {"files": {}, "masks": False, "width": 3, "height": 2, "area": {"cat": 1.0}}
    of_status = of_done if status == DONE else {"error": "damaged"}
    return {**known, "stamp": [1, 2], **of_status, **content}


def test_the_last_record_of_an_image_counts(tmp_path):
    for number, status in enumerate((FAILED, DONE)):
        journal = Journal(tmp_path / f"{number}.jsonl")
        journal.append(record("b", status, stamp=[number, 0]))
        journal.append(record(f"ü\n{number}"))
        journal.close()
    records = Records([tmp_path / "0.jsonl", tmp_path / "1.jsonl"])
    assert {name: x.status for name, x in records.entries.items()} == dict.fromkeys(
        ["b", "ü\n0", "ü\n1"], DONE
    )
    lines = list(map(json.loads, records.lines()))
    assert [line["name"] for line in lines] == ["b", "ü\n0", "ü\n1"]
    assert lines[0]["stamp"] == [1, 0]


def test_what_is_no_record_counts_as_absent(tmp_path):
    whole = json.dumps(record("a")).encode() + b"\n"
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xff\n[]\n{}\n" + whole + whole.replace(b'"a"', b'"b"')[:-1])
    assert set(Records([path]).entries) == {"a"}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"name": 5}, {"status": "new"}, {"status": []}, {"source": None}, {"stamp": 5}),
        *({"file_name": 7}, {"width": "3"}, {"area": None}, {"area": {"cat": "1"}}),
        *({"files": []}, {"files": {"labels": None}}, {"masks": None}, {"masks": True}),
    ],
)
def test_what_somebody_has_damaged_counts_as_absent(tmp_path, wrong):
    path = tmp_path / "x.jsonl"
    path.write_text(f"{json.dumps(record('b') | wrong)}\n{json.dumps(record('a'))}\n")
    assert set(Records([path]).entries) == {"a"}


@pytest.mark.parametrize("status", [DONE, FAILED])
def test_what_has_lost_a_part_counts_as_absent(tmp_path, status):
    whole = record("a", status)
    less = ({key: value for key, value in whole.items() if key != lost} for lost in whole)
    path = tmp_path / "x.jsonl"
    path.write_text("".join(f"{json.dumps(part)}\n" for part in less))
    assert not Records([path]).entries


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
