"""JSON: schema 1 of DESIGN section 6, for other programs, and one object a line for `ls`.

The document is laid out with one row of a list on a line, so that it can be searched and compared by line;
the encoder is the C one (the standard library's own ``indent`` falls back to a slow one).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

from layerlens.model import Edge, Entry
from layerlens.render import Explained, escape
from layerlens.report import Report, display

_encode = json.JSONEncoder(ensure_ascii=False).encode
_BETWEEN = "\0"
"""Inside of a JSON string it is always escaped (RFC 8259, section 7)."""
_encode_packed = json.JSONEncoder(ensure_ascii=False, separators=(_BETWEEN, ": ")).encode


def dumps(report: Report) -> str:
    """The whole report as one JSON document in key order, with a newline at its end."""
    return document(report.to_dict())


def document(mapping: Mapping[str, Any]) -> str:
    """A dictionary (a plan's, a slim image's, a verification's) as one JSON document, with a newline at its end."""
    return escape.json(_object(mapping, "")) + "\n"


def _object(mapping: Mapping[str, Any], indent: str) -> str:
    """A mapping with a key a line; lists of objects below it with a row a line, all else on one line."""
    inner = indent + "  "
    lines = []
    for key, value in mapping.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            between = f"\n{inner}  "
            text = f"[{between}{_rows(value, between)}\n{inner}]"
        elif isinstance(value, dict) and any(isinstance(v, list | dict) for v in value.values()):
            text = _object(value, inner)
        else:
            text = _encode(value)
        lines.append(f"{inner}{_encode(key)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _rows(rows: Sequence[Mapping[str, Any]], between: str) -> str:
    """Every object of a list as :func:`_encode` has it, in one go: a call for each takes twice as long."""
    text = _encode_packed(rows)[1:-1]
    if text.count(f"}}{_BETWEEN}{{") != len(rows) - 1:  # there are such lists inside of them too
        return f",{between}".join(map(_encode, rows))
    return text.replace(f"}}{_BETWEEN}{{", f"}},{between}{{").replace(_BETWEEN, ", ")


def ls_line(entry: Entry) -> str:
    """One entry as a JSON object on one line, without the newline."""
    path, target = entry.path, entry.link_target
    shown = display(path)
    exact = "" if shown == path else f', "path_base64": "{_base64(path)}"'
    line = (
        f'{{"path": {encode_basestring(shown)}{exact}, "type": "{entry.type.label}", '
        f'"size_bytes": {entry.size_bytes}, "mode": "{entry.mode & 0o7777:04o}", '
        f'"uid": {entry.uid}, "gid": {entry.gid}, '
        f'"link_target": {"null" if target is None else encode_basestring(display(target))}, '
        f'"layer": {entry.layer}}}'
    )
    return escape.json(line)


def _base64(path: str) -> str:
    return base64.b64encode(path.encode("utf-8", "surrogateescape")).decode("ascii")


def why(explanation: Explained) -> str:
    """One path's explanation as a JSON document, with a newline at its end."""
    explained = {
        "path": display(explanation.path),
        "layer": explanation.layer,
        "instruction": explanation.instruction,
        "package": explanation.package,
        "category": explanation.category,
        "verdict": explanation.verdict,
        "chain": _edges(explanation.chain),
        "would_need": _edges(explanation.would_need),
        "reason": None if explanation.reason is None else display(explanation.reason),
        "type": explanation.type.label,
        "size_bytes": explanation.size_bytes,
    }
    return document(explained)


def _edges(edges: Sequence[Edge] | None) -> list[dict[str, str]] | None:
    if edges is None:
        return None
    return [
        {
            "from": display(edge.source),
            "to": display(edge.target),
            "kind": edge.kind,
            "evidence": edge.evidence,
            "certainty": edge.certainty,
        }
        for edge in edges
    ]
