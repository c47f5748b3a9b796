"""What Jupyter shows: compact HTML tables that carry their own style, and data frames.

The HTML loads nothing from anywhere, runs no script and takes its colours from the notebook's theme
(JupyterLab's ``--jp-*`` and VS Code's ``--vscode-*`` variables), from ``prefers-color-scheme`` where there is
no theme. Both background and text are set, so that neither can vanish on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from layerlens.errors import LayerLensError, UsageError
from layerlens.model import Edge, Instruction
from layerlens.render import Explained, escape, highlights, units
from layerlens.report import ImageSummary, LayerReport, Report, display

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("files", "layers", "packages", "paths", "waste")
"""Names that :func:`to_frame` knows."""

FILE_COLUMNS = (
    "path",
    "type",
    "size_bytes",
    "mode",
    "uid",
    "gid",
    "mtime",
    "category",
    "package",
    "ecosystem",
    "layer",
    "link_target",
)
"""Columns of the table ``files``, in the order of the rows that ``file_rows`` gives."""

TOP = 12
LONGEST_NAME = 90
MOST_DRAWN = 14
"""Neighbours on one side of the drawing of a path's neighbourhood."""
MOST_ROWS = 200
"""Edges in a table below it."""
_LABEL_CHARACTERS = 42
_ROW_PX, _GAP_PX, _BOX_PX = 24, 110, 310
_MIDDLE_PX = 310 + _GAP_PX
_RIGHT_PX = _MIDDLE_PX + _BOX_PX + _GAP_PX
_WIDTH_PX = _RIGHT_PX + 310
"""Of the drawing: three columns of labels, and a gap for the edges between them."""

_STYLE = """
.layerlens{--ll-bg:var(--jp-layout-color0,var(--vscode-editor-background,#fff));
--ll-fg:var(--jp-content-font-color1,var(--vscode-editor-foreground,#1f2328));
--ll-base:#8aa4c8;--ll-own:#3f8f5b;--ll-cat:#3d87a8;--ll-gone:#d2913f;
background:var(--ll-bg);color:var(--ll-fg);font:13px/1.45 var(--jp-ui-font-family,system-ui,sans-serif);
padding:.6em .8em;overflow-x:auto}
@media (prefers-color-scheme:dark){.layerlens{
--ll-bg:var(--jp-layout-color0,var(--vscode-editor-background,#16191d));
--ll-fg:var(--jp-content-font-color1,var(--vscode-editor-foreground,#d6dae0))}}
.layerlens table{border-collapse:collapse;margin:.2em 0 .6em;width:auto;max-width:100%;color:inherit;
font-size:inherit;border:0}
.layerlens th,.layerlens td{padding:.1em 1.3em .1em 0;text-align:left;vertical-align:top;border:0;
background:none;white-space:nowrap;color:inherit;max-width:none}
.layerlens tr{background:none!important;border:0}
.layerlens th{font-weight:500;opacity:.65;
border-bottom:1px solid color-mix(in srgb,currentColor 25%,transparent)}
.layerlens td.n,.layerlens th.n{text-align:right;font-variant-numeric:tabular-nums}
.layerlens td.w{white-space:normal;overflow-wrap:anywhere}
.layerlens code{font:12px/1.4 var(--jp-code-font-family,ui-monospace,monospace);color:inherit;background:none;
padding:0}
.layerlens summary{cursor:pointer;font-weight:600;margin-top:.3em}
.layerlens summary span,.layerlens p span{font-weight:400;opacity:.65}
.layerlens p{margin:.1em 0}
.layerlens .b{display:flex;width:8em;height:.75em;margin-top:.3em}
.layerlens .b i{display:block;height:100%}
"""


@runtime_checkable
class HasFileRows(Protocol):
    """A report that can still say all of an image's live files, as the one of `layerlens.inspect` can."""

    def file_rows(self) -> Iterator[tuple[Any, ...]]:
        """Live paths, sorted, as tuples of :data:`FILE_COLUMNS`."""


def report_html(report: Report) -> str:
    """The report as HTML: layers and categories open, the longer tables folded."""
    image, totals, waste = report.image, report.totals, report.waste
    compressed = totals.compressed_bytes
    sums = f"{units.size(totals.layer_bytes)} in {units.count(len(report.layers), 'layer')}" + (
        "" if compressed is None else f", {units.size(compressed)} as blobs"
    )
    parts = [
        _title(image),
        f"<p>{sums}; {units.size(totals.live_bytes)} live in {units.count(totals.live_files, 'file')}, "
        f"{units.size(totals.shadowed_bytes)} shadowed, {units.size(waste.duplicate_bytes)} in duplicates. "
        f"Efficiency {units.ratio(waste.efficiency)} <span>(live / stored bytes; "
        f"{units.ratio(waste.dive_efficiency)} by dive's definition)</span></p>",
        _layers(report),
        _categories(report),
        _section(
            "Paths",
            ("size>", "path", "category", "package", "layers"),
            (
                (
                    units.size(path.size_bytes),
                    _code(path.path),
                    escape.html(path.category),
                    _code(path.package or ""),
                    highlights.layer_list(path.layers),
                )
                for path in report.paths[:TOP]
            ),
            len(report.paths),
        ),
        _section(
            "Packages",
            ("size>", "package", "version", "from", "layer>"),
            (
                (
                    units.size(package.size_bytes),
                    _code(package.name),
                    _code(package.version),
                    escape.html(package.ecosystem),
                    "" if package.layer is None else str(package.layer),
                )
                for package in sorted(report.packages, key=lambda p: (-p.size_bytes, p.name))[:TOP]
            ),
            len(report.packages),
        ),
        _section(
            "Waste",
            ("size>", "kind", "path", "layers", "by instruction~"),
            (
                (
                    units.size(item.size_bytes),
                    item.kind,
                    _code(item.path),
                    highlights.hidden_layers(item.layers),
                    _instruction(item.instruction),
                )
                for item in waste.items[:TOP]
            ),
            len(waste.items),
        ),
    ]
    if report.diagnostics:
        parts.append(f"<p>Diagnostics: {highlights.diagnostics_count(report.diagnostics)}</p>")
    return _page(parts)


def image_html(summary: ImageSummary, instructions: Sequence[Instruction], layer_bytes: Sequence[int]) -> str:
    """An image as HTML: who it is, and its history with the size in bytes of each layer."""
    largest = max(layer_bytes, default=0)
    rows = []
    for instruction in instructions:
        index = instruction.layer
        known = index is not None and index < len(layer_bytes)
        size_bytes = layer_bytes[index] if known and index is not None else 0
        colour = "base" if instruction.from_base else "own"
        rows.append(
            (
                "" if index is None else str(index),
                units.size(size_bytes) if known else "",
                _bar([(size_bytes, colour)], largest),
                "base" if instruction.from_base else "yours",
                _instruction(instruction.text),
            )
        )
    parts = [
        _title(summary),
        f"<p>{units.size(sum(layer_bytes))} in {units.count(len(layer_bytes), 'layer')}</p>",
        _section("History", ("#>", "size>", "", "whose", "instruction~"), rows, is_open=True),
    ]
    return _page(parts)


def plan_html(document: Mapping[str, Any]) -> str:
    """A plan (its dictionary) as HTML: sizes, copies, what stays behind, and the Dockerfile."""
    total = document["estimated_bytes"] + document["saved_bytes"]
    what = "Nothing to gain: " if document["nothing_to_gain"] else ""
    parts = [
        f"<p><b>{what}{units.size(total)} → {units.size(document['estimated_bytes'])}</b> on "
        f"{_code(document['runtime_image'])}</p>",
        *(f"<p>{escape.html(escape.line(line))}</p>" for line in _plan_notes(document)),
        _section(
            "Copies",
            ("size>", "from the image", "why~"),
            [
                (units.size(row["size_bytes"]), _code(row["source"]), escape.html(row["reason"]))
                for row in document["copies"]
            ],
            is_open=True,
        ),
        _section(
            "Left behind",
            ("size>", "path", "why~"),
            [
                (units.size(row["size_bytes"]), _code(row["path"]), escape.html(row["reason"]))
                for row in document["dropped"]
            ],
        ),
        "<pre>" + "\n".join(map(escape.html, document["dockerfile"].splitlines())) + "</pre>",
    ]
    return _page(parts)


def _plan_notes(document: Mapping[str, Any]) -> Iterator[str]:
    """What is said of a plan beside its tables, a line each."""
    sums = document["totals"]
    yield (
        f"{units.size(sums['base_bytes'])} runtime image, {units.size(sums['package_bytes'])} OS packages, "
        f"{units.size(sums['copy_bytes'])} copied; {units.size(sums['drop_bytes'])} stay behind"
    )
    if document["os_packages"]:
        yield f"install {' '.join(document['os_packages'])}"
    for one in document.get("forgotten", ()):
        yield f"the program cannot start: {one['reason']}"
    for other in document["alternatives"]:
        yield (
            f"or on {other['runtime_image']}: {units.size(other['estimated_bytes'])}, since {other['reason']}"
        )
    for warning in document["warnings"]:
        yield f"warning: {warning}"


def neighbourhood_html(
    explanation: Explained, needed_by: Sequence[Edge], needs: Sequence[Edge], sizes: Mapping[str, int]
) -> str:
    """A path between what needs it and what it needs, drawn and in words; ``sizes`` are bytes of files."""
    verdict = explanation.verdict or "no plan"
    facts = [
        units.size(explanation.size_bytes),
        verdict,
        explanation.category or "",
        explanation.package or "",
    ]
    parts = [
        f"<p><b>{_code(explanation.path)}</b> <span>{escape.html(', '.join(filter(None, facts)))}</span></p>"
    ]
    if explanation.reason:
        parts.append(f"<p>dropped: {escape.html(escape.line(explanation.reason))}</p>")
    parts.append(_drawing(explanation, needed_by, needs, sizes))
    for title, edges, is_open in (
        ("The shortest chain from a root", explanation.chain or (), True),
        ("Would be needed by" if verdict == "drop" else "Needed by", needed_by, False),
        ("Needs", needs, False),
    ):
        rows = [
            (
                _code(edge.source),
                escape.html(edge.kind),
                _code(edge.target),
                escape.html(escape.line(edge.evidence)),
            )
            for edge in edges[:MOST_ROWS]
        ]
        parts.append(_section(title, ("from", "kind", "to", "evidence~"), rows, len(edges), is_open=is_open))
    return _page(parts)


def _drawing(
    explanation: Explained, needed_by: Sequence[Edge], needs: Sequence[Edge], sizes: Mapping[str, int]
) -> str:
    """The neighbourhood as SVG: three columns, what needs it on the left and what it needs on the right."""
    left, right = list(needed_by[:MOST_DRAWN]), list(needs[:MOST_DRAWN])
    rows = max(len(left) + (len(needed_by) > MOST_DRAWN), len(right) + (len(needs) > MOST_DRAWN), 1)
    height = rows * _ROW_PX + 8
    middle = height / 2
    pieces = [
        f'<rect x="{_MIDDLE_PX}" y="{middle - 11:g}" width="{_BOX_PX}" height="22" rx="4" fill="none" '
        'stroke="currentColor"/>',
        _label(_MIDDLE_PX + _BOX_PX / 2, middle, explanation.path, explanation.path, "middle"),
    ]
    for edges, count, at, anchor, ends in (
        (left, len(needed_by), _MIDDLE_PX - _GAP_PX, "end", (_MIDDLE_PX - _GAP_PX + 6, _MIDDLE_PX)),
        (right, len(needs), _MIDDLE_PX + _BOX_PX + _GAP_PX, "start", (_MIDDLE_PX + _BOX_PX, _RIGHT_PX - 6)),
    ):
        top = (height - (len(edges) + (count > len(edges))) * _ROW_PX) / 2 + _ROW_PX / 2
        for number, edge in enumerate(edges):
            y = top + number * _ROW_PX
            name = edge.source if anchor == "end" else edge.target
            weight = f" ({units.size(sizes[name])})" if name in sizes else ""
            pieces.append(_label(at, y, name, f"{name}{weight}: {edge.evidence}", anchor))
            pieces.append(_arrow(ends, (y, middle) if anchor == "end" else (middle, y), edge.kind, anchor))
        if count > len(edges):
            more = f"and {count - len(edges):,} more"
            pieces.append(_label(at, top + len(edges) * _ROW_PX, more, more, anchor))
    return (
        f'<svg viewBox="0 0 {_WIDTH_PX} {height:g}" width="{_WIDTH_PX}" height="{height:g}" role="img" '
        f'style="max-width:100%;height:auto">{"".join(pieces)}</svg>'
    )


def _label(x: float, y: float, name: str, told: str, anchor: str) -> str:
    shown = escape.html(escape.middle(escape.terminal(name), _LABEL_CHARACTERS))
    return (
        f'<text x="{x:g}" y="{y + 4:g}" text-anchor="{anchor}" fill="currentColor" font-size="11.5" '
        f'font-family="var(--jp-code-font-family,ui-monospace,monospace)">{shown}'
        f"<title>{escape.html(escape.line(told))}</title></text>"
    )


def _arrow(ends: tuple[float, float], heights: tuple[float, float], kind: str, anchor: str) -> str:
    """A curve with the edge's kind at the neighbour's end."""
    (x1, x2), (y1, y2) = ends, heights
    bend = (x1 + x2) / 2
    word_x, word_y = (x1 + 4, y1) if anchor == "end" else (x2 - 4, y2)
    side = "start" if anchor == "end" else "end"
    return (
        f'<path d="M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x2:g} {y2:g}" fill="none" '
        'stroke="currentColor" opacity=".35"/>'
        f'<text x="{word_x:g}" y="{word_y - 3:g}" text-anchor="{side}" fill="currentColor" font-size="9.5" '
        f'opacity=".7">{escape.html(kind)}</text>'
    )


def _page(parts: Iterable[str]) -> str:
    return f'<div class="layerlens"><style>{_STYLE}</style>{"".join(parts)}</div>'


def _title(image: ImageSummary) -> str:
    facts = [escape.html(image.platform)]
    if image.created:
        facts.append(f"created {escape.html(image.created)}")
    command = highlights.command_line(image)
    if command:
        facts.append(f"runs {_code(command)}")
    if image.user:
        facts.append(f"as {_code(image.user)}")
    identity = f" <span>{_code(image.id)}</span>" if image.id else ""
    return f"<p><b>{_code(image.reference)}</b>{identity}</p><p><span>{', '.join(facts)}</span></p>"


def _layers(report: Report) -> str:
    total = report.totals.layer_bytes
    largest = max((layer.size_bytes for layer in report.layers), default=0)
    return _section(
        "Layers",
        ("#>", "size>", "share>", "", "shadowed>", "whose", "instruction~"),
        (
            (
                str(layer.index),
                units.size(layer.size_bytes),
                units.share(layer.size_bytes, total),
                _layer_bar(layer, largest),
                units.size(layer.shadowed_bytes) if layer.shadowed_bytes else "",
                "base" if layer.from_base else "yours",
                _instruction(layer.instruction),
            )
            for layer in report.layers
        ),
        is_open=True,
    )


def _layer_bar(layer: LayerReport, largest: int) -> str:
    live = layer.size_bytes - layer.shadowed_bytes
    return _bar([(live, "base" if layer.from_base else "own"), (layer.shadowed_bytes, "gone")], largest)


def _categories(report: Report) -> str:
    total = report.totals.live_bytes
    largest = max((category.size_bytes for category in report.categories), default=0)
    return _section(
        "Categories",
        ("category", "size>", "share>", "", "files>"),
        (
            (
                escape.html(category.name),
                units.size(category.size_bytes),
                units.share(category.size_bytes, total),
                _bar([(category.size_bytes, "cat")], largest),
                units.count(category.files),
            )
            for category in report.categories
            if category.files or category.size_bytes
        ),
        is_open=True,
    )


def _bar(parts: Sequence[tuple[int, str]], whole: int) -> str:
    if whole <= 0:
        return ""
    pieces = "".join(
        f'<i style="width:{100 * part / whole:.1f}%;background:var(--ll-{colour})"></i>'
        for part, colour in parts
        if part > 0
    )
    return f'<div class="b">{pieces}</div>'


def _code(name: str) -> str:
    return f"<code>{escape.html(escape.middle(escape.terminal(name), LONGEST_NAME))}</code>" if name else ""


def _instruction(text: str | None) -> str:
    shown = escape.end(escape.line(text or ""), 2 * LONGEST_NAME)
    return f"<code>{escape.html(shown)}</code>" if shown else ""


def _section(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    all_rows: int | None = None,
    *,
    is_open: bool = False,
) -> str:
    """A foldable table of cells that are HTML already; a heading in ``>`` is of numbers, in ``~`` of text
    that may wrap. Nothing at all without rows.
    """
    kinds = [{">": ' class="n"', "~": ' class="w"'}.get(heading[-1:], "") for heading in headings]
    body = [
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    ]
    if not body:
        return ""
    head = "".join(
        f"<th{kind}>{heading.rstrip('>~')}</th>" for kind, heading in zip(kinds, headings, strict=True)
    )
    folded = all_rows is not None and all_rows > len(body)
    note = f" <span>{len(body)} of {all_rows:,}</span>" if folded else ""
    return (
        f"<details{' open' if is_open else ''}><summary>{title}{note}</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></details>"
    )


def to_frame(report: Report, table: str) -> pd.DataFrame:
    """One table of the report as a pandas data frame.

    Sizes and counts are ``int64`` (``Int64`` where they may be unknown), closed sets of words are
    categorical, times are UTC timestamps (NaT outside what pandas can hold), and bytes that are not UTF-8
    show as U+FFFD, as in the JSON.

    Raises :class:`UsageError` for a table that does not exist, :class:`LayerLensError` without pandas.
    """
    if table not in TABLES:
        raise UsageError(f"no table named {table!r}", f"Choose one of {', '.join(TABLES)}.")
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise LayerLensError(
            f"to_pandas needs pandas, which cannot be imported: {error}",
            "Install the notebook extra: pip install 'layerlens-oci[notebook]'",
        ) from error
    if table == "files":
        return _files_frame(report)
    frames = {
        "layers": _layers_frame,
        "packages": _packages_frame,
        "paths": _paths_frame,
        "waste": _waste_frame,
    }
    return frames[table](report)


def _frame(columns: dict[str, tuple[Sequence[Any], str]]) -> pd.DataFrame:
    """A frame from values and a dtype for each column; numbers beyond 64 bits (headers lie) stay whole."""
    import pandas as pd

    series = {}
    for name, (values, dtype) in columns.items():
        try:
            series[name] = pd.Series(values, dtype=dtype)
        except OverflowError:
            series[name] = pd.Series(values, dtype="object")
    return pd.DataFrame(series)


def _texts(values: Iterable[str | None]) -> list[str | None]:
    return [None if value is None else display(value) for value in values]


def _closed(values: Sequence[Any], order: Sequence[str]) -> Any:
    """A categorical column: known words in their own order, further ones after them."""
    import pandas as pd

    known = list(dict.fromkeys([*order, *sorted({value for value in values if value is not None})]))
    return pd.Series(pd.Categorical(values, categories=known))


def _category_order(report: Report) -> list[str]:
    return [category.name for category in report.categories]


def _files_frame(report: Report) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(report, HasFileRows):
        raise UsageError(
            "this report does not hold the image's files",
            "Call to_pandas on the report that layerlens.inspect returned.",
        )
    columns = list(zip(*report.file_rows(), strict=True)) or [()] * len(FILE_COLUMNS)
    values = dict(zip(FILE_COLUMNS, columns, strict=True))
    frame = _frame(
        {
            "path": (_texts(values["path"]), "object"),
            **{name: (values[name], "int64") for name in ("size_bytes", "mode", "uid", "gid", "layer")},
            "package": (_texts(values["package"]), "object"),
            "link_target": (_texts(values["link_target"]), "object"),
        }
    )
    frame["type"] = _closed(_texts(values["type"]), ())
    frame["category"] = _closed(_texts(values["category"]), _category_order(report))
    frame["ecosystem"] = _closed(_texts(values["ecosystem"]), ())
    seconds = pd.Series(values["mtime"], dtype="float64")
    bounds = pd.Timestamp.min.timestamp() + 1, pd.Timestamp.max.timestamp() - 1
    microseconds = (seconds.where(seconds.between(*bounds)) * 1e6).round()
    frame["mtime"] = pd.to_datetime(microseconds, unit="us", utc=True).astype("datetime64[ns, UTC]")
    return frame[list(FILE_COLUMNS)]


def _layers_frame(report: Report) -> pd.DataFrame:
    layers = report.layers
    frame = _frame(
        {
            "index": ([layer.index for layer in layers], "int64"),
            "diff_id": (_texts(layer.diff_id for layer in layers), "object"),
            "digest": (_texts(layer.digest for layer in layers), "object"),
            "size_bytes": ([layer.size_bytes for layer in layers], "int64"),
            "compressed_bytes": ([layer.compressed_bytes for layer in layers], "Int64"),
            "shadowed_bytes": ([layer.shadowed_bytes for layer in layers], "int64"),
            "entries": ([layer.entries for layer in layers], "int64"),
            "instruction": (_texts(layer.instruction for layer in layers), "object"),
            "from_base": ([layer.from_base for layer in layers], "bool"),
        }
    )
    for name in _category_order(report):
        frame[f"categories.{name}"] = _frame(
            {"bytes": ([layer.categories.get(name, 0) for layer in layers], "int64")}
        )["bytes"]
    return frame


def _packages_frame(report: Report) -> pd.DataFrame:
    packages = report.packages
    frame = _frame(
        {
            "ecosystem": ([None] * len(packages), "object"),
            "name": (_texts(package.name for package in packages), "object"),
            "version": (_texts(package.version for package in packages), "object"),
            "size_bytes": ([package.size_bytes for package in packages], "int64"),
            "files": ([package.files for package in packages], "int64"),
            "needed": ([package.needed for package in packages], "boolean"),
            "layer": ([package.layer for package in packages], "Int64"),
            "location": (_texts(package.location for package in packages), "object"),
        }
    )
    frame["ecosystem"] = _closed(_texts(package.ecosystem for package in packages), ())
    return frame


def _paths_frame(report: Report) -> pd.DataFrame:
    paths = report.paths
    frame = _frame(
        {
            "path": (_texts(path.path for path in paths), "object"),
            "size_bytes": ([path.size_bytes for path in paths], "int64"),
            "files": ([path.files for path in paths], "int64"),
            "category": ([None] * len(paths), "object"),
            "package": (_texts(path.package for path in paths), "object"),
            "layers": ([list(path.layers) for path in paths], "object"),
        }
    )
    frame["category"] = _closed(_texts(path.category for path in paths), _category_order(report))
    return frame


def _waste_frame(report: Report) -> pd.DataFrame:
    items = report.waste.items
    frame = _frame(
        {
            "path": (_texts(item.path for item in items), "object"),
            "kind": ([None] * len(items), "object"),
            "size_bytes": ([item.size_bytes for item in items], "int64"),
            "files": ([item.files for item in items], "int64"),
            "layers": ([list(item.layers) for item in items], "object"),
            "instruction": (_texts(item.instruction for item in items), "object"),
        }
    )
    frame["kind"] = _closed([item.kind for item in items], ("overwritten", "deleted", "metadata-only"))
    return frame
