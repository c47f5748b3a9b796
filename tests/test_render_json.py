"""JSON: schema 1 whole and in order, and one object a line for `ls`."""

from __future__ import annotations

import base64
import json
import os
import re
import time

from hypothesis import given
from hypothesis import strategies as st
from reportkit import EVIL, Explanation, hostile, report

from layerlens.model import Edge, Entry, EntryType
from layerlens.render import json as render_json
from layerlens.report import PackageReport


def test_document_is_the_dictionary_in_key_order() -> None:
    made = report()
    text = render_json.dumps(made)
    assert text.endswith("}\n")
    assert json.loads(text) == made.to_dict()
    assert list(json.loads(text)) == list(made.to_dict())
    assert render_json.dumps(report()) == text


def test_one_row_of_a_list_on_a_line() -> None:
    lines = render_json.dumps(report()).splitlines()
    rows = [line for line in lines if '"diff_id"' in line]
    assert len(rows) == 6
    assert all(json.loads(row.strip().rstrip(","))["instruction"] is not None for row in rows[:5])


_ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(["a", "b", "}\0{"]),
        st.recursive(
            st.none() | st.integers() | st.text(st.sampled_from('\0{},:"\\a é'), max_size=6),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("k"), inner, max_size=1),
            max_leaves=6,
        ),
        max_size=3,
    ),
    min_size=1,
    max_size=5,
)


@given(_ROWS)
def test_rows_are_those_that_the_encoder_makes_one_by_one(rows: list[dict[str, object]]) -> None:
    each = [json.dumps(row, ensure_ascii=False) for row in rows]
    assert render_json._rows(rows, "\n  ") == ",\n  ".join(each)


def test_empty_lists_and_nulls_are_there() -> None:
    document = json.loads(render_json.dumps(report(paths=(), packages=(), diagnostics=())))
    assert document["paths"] == document["packages"] == document["diagnostics"] == []
    assert document["recommendation"] is None


def test_hostile_strings_are_valid_and_harmless() -> None:
    text = render_json.dumps(hostile())
    text.encode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)
    document = json.loads(text)
    assert document["layers"][0]["instruction"] == EVIL.replace("\udce9", "\ufffd")
    assert document["image"]["healthcheck"]


def test_a_megabyte_is_cheap() -> None:
    packages = tuple(
        PackageReport(
            "node", f"package-{n}", "1.0.0", n, 3, None, 4, f"/app/node_modules/package-{n}/package.json"
        )
        for n in range(8_000)
    )
    made = report(packages=packages)
    began = time.process_time()
    text = render_json.dumps(made)
    assert len(text) > 1_000_000
    assert time.process_time() - began < 0.5  # 0.03 s here; the slow encoder needs ten times that


def _entry(path: str, kind: EntryType = EntryType.FILE, **more: object) -> Entry:
    values = {
        "size_bytes": 0,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "mtime": 0.0,
        "link_target": None,
        "layer": 0,
    }
    return Entry(path=path, type=kind, **{**values, **more})  # type: ignore[arg-type]


def test_ls_line() -> None:
    line = render_json.ls_line(_entry("/usr/bin/x", size_bytes=12, mode=0o104755, uid=1, gid=2, layer=3))
    assert list(json.loads(line)) == [
        "path",
        "type",
        "size_bytes",
        "mode",
        "uid",
        "gid",
        "link_target",
        "layer",
    ]
    assert json.loads(line) == {
        "path": "/usr/bin/x",
        "type": "file",
        "size_bytes": 12,
        "mode": "4755",
        "uid": 1,
        "gid": 2,
        "link_target": None,
        "layer": 3,
    }
    assert json.loads(render_json.ls_line(_entry("/x", mode=0o755)))["mode"] == "0755"
    assert json.loads(render_json.ls_line(_entry("/x", mode=0)))["mode"] == "0000"


def test_ls_line_of_every_type() -> None:
    for kind in EntryType:
        assert json.loads(render_json.ls_line(_entry("/x", kind)))["type"] == kind.label


def test_ls_line_of_bytes_that_are_not_utf8() -> None:
    raw = b'/caf\xe9 "\n\x1b\\'
    record = json.loads(
        render_json.ls_line(_entry(os.fsdecode(raw), EntryType.SYMLINK, link_target=os.fsdecode(raw)))
    )
    assert record["path"] == '/caf\ufffd "\n\x1b\\'
    assert base64.b64decode(record["path_base64"]) == raw
    assert record["link_target"] == record["path"]
    assert "path_base64" not in json.loads(render_json.ls_line(_entry("/café\n")))


def test_ls_line_is_one_line() -> None:
    line = render_json.ls_line(_entry("/" + EVIL))
    assert len(line.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f]", line)


def test_why() -> None:
    text = render_json.why(Explanation())
    document = json.loads(text)
    assert text.endswith("}\n")
    assert list(document)[:8] == [
        "path",
        "layer",
        "instruction",
        "package",
        "category",
        "verdict",
        "chain",
        "would_need",
    ]
    assert document["instruction"] == "RUN apt-get install -y gcc"
    assert document["chain"] is document["verdict"] is document["would_need"] is None
    assert (document["type"], document["size_bytes"]) == ("symlink", 0)


def test_why_with_a_chain() -> None:
    edge = Edge("/app/x", "/lib/" + EVIL, "elf", "DT_NEEDED", "certain")
    document = json.loads(render_json.why(Explanation(chain=(edge,))))
    assert list(document["chain"][0]) == ["from", "to", "kind", "evidence", "certainty"]
    assert document["chain"][0]["certainty"] == "certain"
