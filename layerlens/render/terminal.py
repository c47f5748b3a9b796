"""Tables for a terminal: 80 columns are enough, more are used, and nothing depends on colour.

rich lays out and colours; it is imported when a report is drawn, and it never sees markup: every cell is a
``Text`` of an escaped name. `ls` prints as many lines as there are files and does without it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from layerlens.model import Diagnostic, Edge, Entry, EntryType
from layerlens.render import Explained, escape, highlights, units
from layerlens.report import LayerReport, Report

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 60
"""Below this many columns lines are left to wrap."""
WIDEST = 200
TOP_PATHS = 15
TOP_WASTE = 10
TOP_DUPLICATES = 5
TOP_COPIES = 20
TOP_DIAGNOSTICS = 3
LONGEST_PATH = 4096
"""`ls` shows longer paths cut in the middle: no kernel opens them (PATH_MAX)."""

_EIGHTHS = " ▏▎▍▌▋▊▉"
_ASCII = str.maketrans({**dict.fromkeys("▏▎▍▌", "-"), **dict.fromkeys("▋▊▉█", "#"), "░": ".", "·": "|"})
_ASCII_WORDS = {"→": "->", "…": "~", "×": "x", "\ufffd": "?"}
_MODE_TYPES = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.DIR: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.CHAR: stat.S_IFCHR,
    EntryType.BLOCK: stat.S_IFBLK,
    EntryType.FIFO: stat.S_IFIFO,
}
_MODE_LETTERS = {EntryType.HARDLINK: "h", EntryType.WHITEOUT: "w", EntryType.OPAQUE: "o"}


def plain_ascii(text: str) -> str:
    """`text` for an output that cannot show bars and arrows; other characters are left as they are."""
    text = text.translate(_ASCII)
    for character, word in _ASCII_WORDS.items():
        text = text.replace(character, word)
    return text


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of a table: a heading, a width in columns, and how its cells are aligned and coloured."""

    heading: str
    width: int
    justify: Literal["left", "right"] = "left"
    style: str = ""
    cut: Literal["middle", "end"] = "middle"


class _Page:
    """The text of a report in the making."""

    def __init__(self, width: int, colour: bool) -> None:
        from rich.console import Console

        self.width = max(min(width, WIDEST), NARROWEST)
        self.out = StringIO()
        self.console: Console = Console(
            file=self.out,
            width=self.width,
            force_terminal=colour,
            no_color=not colour,
            color_system="standard" if colour else None,
            markup=False,
            highlight=False,
            emoji=False,
            legacy_windows=False,
            _environ={},
        )

    def text(self) -> str:
        """What was written, without white space at the ends of lines."""
        return "\n".join(line.rstrip() for line in self.out.getvalue().splitlines()) + "\n"

    def heading(self, title: str, note: str = "") -> None:
        """A blank line, the title, and what it sums up to."""
        from rich.text import Text

        self.console.print()
        self.console.print(Text.assemble((title, "bold"), "  ", (note, "dim")), soft_wrap=False)

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Lines of name and value."""
        from rich.table import Table
        from rich.text import Text

        label = max((len(name) for name, _ in facts), default=0)
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=label, no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in facts:
            grid.add_row(Text(name, style="dim"), Text(value))
        self.console.print(grid)

    def table(self, columns: Sequence[_Column], rows: Iterable[Sequence[str | tuple[str, str]]]) -> None:
        """Columns of given widths; what does not fit is cut here, so that both ends of a path stay.

        A cell is its text, or its text and a style of its own.
        """
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for column in columns:
            table.add_column(
                column.heading, justify=column.justify, width=column.width, no_wrap=True, style=column.style
            )
        for row in rows:
            cells = []
            for column, cell in zip(columns, row, strict=True):
                value, style = cell if isinstance(cell, tuple) else (cell, "")
                cut = escape.middle if column.cut == "middle" else escape.end
                cells.append(Text(cut(value, column.width, cell_len), style=style))
            table.add_row(*cells)
        self.console.print(table)

    def rest(self, columns: Sequence[_Column], parts: int = 1) -> int:
        """Columns left for each of `parts` more columns beside `columns`."""
        taken = sum(column.width + 2 for column in columns) + 2 * (parts - 1)
        return max((self.width - taken) // parts, 8)

    def note(self, text: str, style: str = "dim") -> None:
        """One paragraph, wrapped at the page's width."""
        from rich.text import Text

        self.console.print(Text(text, style=style, overflow="fold"))


def report(report: Report, width: int = 80, colour: bool = False) -> str:
    """The whole report as a page of `width` columns (between 60 and 200), with ANSI colours or without."""
    page = _Page(width, colour)
    _header(page, report)
    _layers(page, report)
    _categories(page, report)
    _paths(page, report)
    _packages(page, report)
    _waste(page, report)
    _duplicates(page, report)
    _recommendation(page, report)
    _diagnostics(page, report)
    step = highlights.next_step(report)
    if step:
        page.console.print()
        page.note(f"Next: {step[0]}", "bold")
        page.note(f"      {step[1]}")
    return page.text()


def _header(page: _Page, report: Report) -> None:
    image, totals = report.image, report.totals

    def name(text: str) -> str:
        return escape.middle(escape.terminal(text), 2 * (page.width - 10))

    facts = [("image", name(image.reference))]
    if image.id:
        facts.append(("id", escape.end(escape.terminal(image.id), page.width - 10)))
    made = f", created {name(image.created)}" if image.created else ""
    facts.append(("platform", name(image.platform) + made))
    runs = name(highlights.command_line(image)) or "nothing by itself (neither ENTRYPOINT nor CMD)"
    if image.user:
        runs += f"  as {name(image.user)}"
    if image.workdir:
        runs += f"  in {name(image.workdir)}"
    facts.append(("runs", runs))
    compressed = totals.compressed_bytes
    facts.append(
        (
            "size",
            f"{units.size(totals.layer_bytes)} in {units.count(len(report.layers), 'layer')}"
            + ("" if compressed is None else f", {units.size(compressed)} as blobs"),
        )
    )
    facts.append(
        (
            "live",
            f"{units.size(totals.live_bytes)} in {units.count(totals.live_files, 'file')}; "
            f"{units.size(totals.shadowed_bytes)} shadowed",
        )
    )
    page.facts(facts)


def _layers(page: _Page, report: Report) -> None:
    total = report.totals.layer_bytes
    largest = max((layer.size_bytes for layer in report.layers), default=0)
    wide = page.width >= 120
    bar_width = 24 if wide else 10
    columns = [
        _Column("#", len(str(max(len(report.layers) - 1, 0))), "right", "dim"),
        _Column("size", 7, "right", "bold"),
        _Column("share", 6, "right"),
        _Column("", bar_width),
        _Column("whose", 5),
    ]
    if wide:
        columns += [_Column("shadowed", 8, "right"), _Column("mostly", 16)]
    columns.append(_Column("instruction", page.rest(columns), cut="end"))
    rows = []
    for layer in report.layers:
        colour = "blue" if layer.from_base else "green"
        row: list[str | tuple[str, str]] = [
            str(layer.index),
            units.size(layer.size_bytes),
            units.share(layer.size_bytes, total),
            (layer_bar(layer, largest, bar_width), colour),
            ("base" if layer.from_base else "yours", colour),
        ]
        if wide:
            row += [
                units.size(layer.shadowed_bytes) if layer.shadowed_bytes else "",
                next(iter(layer.categories), ""),
            ]
        rows.append([*row, escape.line(layer.instruction or "(the history does not say)")])
    base = sum(layer.size_bytes for layer in report.layers if layer.from_base)
    page.heading(
        "Layers",
        f"{units.size(total - base)} yours, {units.size(base)} base; █ live ░ shadowed",
    )
    page.table(columns, rows)


def layer_bar(layer: LayerReport, largest: int, width: int) -> str:
    """A bar as long as the layer is big beside the largest: its live bytes full, its shadowed bytes pale."""
    if not largest:
        return ""
    live = layer.size_bytes - layer.shadowed_bytes
    solid = _bar(live, largest, width)
    pale = round(width * layer.size_bytes / largest) - len(solid)
    if layer.shadowed_bytes and not solid:
        pale = max(pale, 1)
    return solid + "░" * max(pale, 0)


def _bar(part: int, whole: int, width: int) -> str:
    """A bar in eighths of a column; anything above nothing shows at least one eighth."""
    if part <= 0 or whole <= 0:
        return ""
    eighths = max(round(8 * width * part / whole), 1)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def _categories(page: _Page, report: Report) -> None:
    total = report.totals.live_bytes
    shown = [category for category in report.categories if category.files or category.size_bytes]
    largest = max((category.size_bytes for category in shown), default=0)
    bar_width = 24 if page.width >= 120 else 20
    columns = [
        _Column("category", 16),
        _Column("size", 7, "right", "bold"),
        _Column("share", 6, "right"),
        _Column("", bar_width, style="cyan"),
        _Column("files", 9, "right"),
    ]
    page.heading("Categories", f"what the {units.size(total)} of live bytes are for")
    page.table(
        columns,
        (
            (
                escape.terminal(category.name),
                units.size(category.size_bytes),
                units.share(category.size_bytes, total),
                _bar(category.size_bytes, largest, bar_width),
                units.count(category.files),
            )
            for category in shown
        ),
    )


def _paths(page: _Page, report: Report) -> None:
    if not report.paths:
        return
    shown = report.paths[:TOP_PATHS]
    columns = [_Column("size", 7, "right", "bold"), _Column("category", 16), _Column("layers", 7)]
    longest = max(len(escape.terminal(path.package or "")) for path in shown)
    package = _Column("package", max(7, min(longest, page.rest(columns, 2) * 2 // 3)), cut="end")
    path_column = _Column("path", page.rest([*columns, package]))
    columns = [columns[0], path_column, columns[1], package, columns[2]]
    page.heading("Paths", _of(len(shown), len(report.paths), "largest first; a path counts all below it"))
    page.table(
        columns,
        (
            (
                units.size(path.size_bytes),
                escape.terminal(path.path),
                escape.terminal(path.category),
                escape.terminal(path.package or ""),
                highlights.layer_list(path.layers),
            )
            for path in shown
        ),
    )


def _of(shown: int, all_of_them: int, note: str) -> str:
    return note if shown == all_of_them else f"{shown} of {units.count(all_of_them)}, {note}"


def _packages(page: _Page, report: Report) -> None:
    if not report.packages:
        return
    groups = highlights.by_ecosystem(report.packages)
    columns = [
        _Column("ecosystem", max(9, min(16, max(len(group.name) for group in groups)))),
        _Column("size", 7, "right", "bold"),
        _Column("count", 6, "right"),
    ]
    columns.append(_Column("largest", page.rest(columns), cut="end"))
    owned = sum(group.size_bytes for group in groups)
    page.heading("Packages", f"{units.count(len(report.packages))}, owning {units.size(owned)}")
    page.table(
        columns,
        (
            (
                escape.terminal(group.name),
                units.size(group.size_bytes),
                units.count(len(group.packages)),
                ", ".join(
                    f"{escape.terminal(package.name)} {units.size(package.size_bytes)}"
                    for package in group.packages[:8]
                ),
            )
            for group in groups
        ),
    )


def _waste(page: _Page, report: Report) -> None:
    waste = report.waste
    page.heading(
        "Waste",
        f"{units.size(waste.shadowed_bytes)} shadowed, {units.size(waste.duplicate_bytes)} in duplicates",
    )
    page.note(
        f"efficiency {units.ratio(waste.efficiency)} (live / stored bytes); "
        f"by dive's definition {units.ratio(waste.dive_efficiency)}",
        "",
    )
    if not waste.items:
        return
    columns = [_Column("size", 7, "right", "bold"), _Column("kind", 13), _Column("layers", 8)]
    path = _Column("path", page.rest(columns, 2) * 6 // 5)
    columns += [path, _Column("by instruction", page.rest([*columns, path]), cut="end")]
    shown = waste.items[:TOP_WASTE]
    page.table(
        columns,
        (
            (
                units.size(item.size_bytes),
                item.kind,
                highlights.hidden_layers(item.layers),
                escape.terminal(item.path),
                escape.line(item.instruction or ""),
            )
            for item in shown
        ),
    )
    _more(page, len(shown), len(waste.items))


def _more(page: _Page, shown: int, all_of_them: int) -> None:
    if shown < all_of_them:
        page.note(f"and {units.count(all_of_them - shown)} more: --format json has all of them")


def _duplicates(page: _Page, report: Report) -> None:
    groups = sorted(report.waste.duplicates, key=lambda g: -g.size_bytes * (len(g.paths) - 1))
    if not groups:
        return
    shown = groups[:TOP_DUPLICATES]
    columns = [
        _Column("saves", 7, "right", "bold"),
        _Column("copies", 6, "right"),
        _Column("each", 7, "right"),
    ]
    half = page.rest(columns, 2)
    columns += [_Column("path", half), _Column("same as", half)]
    page.heading("Duplicates", f"{units.count(len(groups), 'group')} of equal files")
    page.table(
        columns,
        (
            (
                units.size(group.size_bytes * (len(group.paths) - 1)),
                units.count(len(group.paths)),
                units.size(group.size_bytes),
                *(escape.terminal(path) for path in group.paths[:2]),
            )
            for group in shown
        ),
    )
    _more(page, len(shown), len(groups))


def _recommendation(page: _Page, report: Report) -> None:
    found = report.recommendation
    if found is None:
        return
    before = report.totals.layer_bytes
    page.heading(
        "Recommendation",
        f"{units.size(before)} → {units.size(found.estimated_bytes)} on {escape.terminal(found.runtime_image)} "
        f"({units.share(max(found.saved_bytes, 0), before)} less)",
    )
    if found.os_packages:
        page.note(f"install {escape.terminal(' '.join(found.os_packages))}", "")
    _copy_rows(page, found.copies)


def _copy_rows(page: _Page, copies: Sequence[Mapping[str, Any]]) -> None:
    if not copies:
        return
    shown = sorted(copies, key=lambda copy: (-copy["size_bytes"], copy["source"]))[:TOP_COPIES]
    columns = [_Column("copy", 7, "right", "bold")]
    path = _Column("from the image", page.rest(columns, 2) * 4 // 5)
    columns += [path, _Column("why", page.rest([*columns, path]), cut="end")]
    page.table(
        columns,
        (
            (units.size(copy["size_bytes"]), escape.terminal(copy["source"]), escape.line(copy["reason"]))
            for copy in shown
        ),
    )
    _more(page, len(shown), len(copies))


def plan(document: Mapping[str, Any], lines: Mapping[str, str], width: int = 80, colour: bool = False) -> str:
    """A plan (its dictionary) for people: sizes, what is copied and why, what stays behind, and the Dockerfile.

    ``lines`` has, for a COPY line of the Dockerfile, what is said below it.
    """
    page = _Page(width, colour)
    total = document["estimated_bytes"] + document["saved_bytes"]
    forgotten = document.get("forgotten") or ()
    if forgotten:
        page.heading("Forgotten", "the program cannot start; the Dockerfile below copies it")
        for one in forgotten:
            page.note(escape.line(one["reason"]), "")
        page.note("the figures are those of the image as it is: build this Dockerfile and ask again", "")
    title = "Nothing to gain" if document["nothing_to_gain"] else "Recommendation"
    page.heading(
        title,
        f"{units.size(total)} → {units.size(document['estimated_bytes'])} on "
        f"{escape.terminal(document['runtime_image'])} ({units.share(max(document['saved_bytes'], 0), total)} less)",
    )
    sums = document["totals"]
    page.note(
        f"{units.size(sums['base_bytes'])} runtime image, {units.size(sums['package_bytes'])} OS packages, "
        f"{units.size(sums['copy_bytes'])} copied; {units.size(sums['drop_bytes'])} stay behind",
        "",
    )
    if document["os_packages"]:
        page.note(f"install {escape.terminal(' '.join(document['os_packages']))}", "")
    for other in document["alternatives"]:
        page.note(
            f"or on {escape.terminal(other['runtime_image'])}: {units.size(other['estimated_bytes'])}, "
            f"since {escape.line(other['reason'])}",
            "",
        )
    _copy_rows(page, document["copies"])
    _left_behind(page, document["dropped"])
    for warning in document["warnings"]:
        page.note(f"warning: {escape.line(warning)}", "")
    found = [Diagnostic(**diagnostic) for diagnostic in document["diagnostics"]]
    _told_diagnostics(page, found)
    if document["dockerignore"]:
        page.heading(".dockerignore", "what COPY brings in and neither program nor build needs")
        for line in document["dockerignore"][:TOP_WASTE]:
            page.note(escape.terminal(line), "")
        _more(page, min(TOP_WASTE, len(document["dockerignore"])), len(document["dockerignore"]))
    page.heading("Dockerfile")
    for line in document["dockerfile"].splitlines():
        page.note(escape.terminal(line), "")
        if line in lines:
            page.note(f"    # {escape.line(lines[line])}")
    return page.text()


def slim(document: Mapping[str, Any], width: int = 80, colour: bool = False) -> str:
    """A slim image (its dictionary) for people: sizes, layers, what is left to attack, where it is."""
    page = _Page(width, colour)
    sums = document["totals"]
    total = sums["original_bytes"]
    page.heading(
        "Slim image",
        f"{units.size(total)} → {units.size(sums['slim_bytes'])} on {escape.terminal(document['runtime_image'])} "
        f"({units.share(max(sums['saved_bytes'], 0), total)} less)",
    )
    page.facts(_slim_facts(document))
    if document["layers"]:
        columns = [
            _Column("size", 7, "right", "bold"),
            _Column("files", 7, "right"),
            _Column("diff ID", 19, cut="end"),
        ]
        page.heading("Layers", units.count(len(document["layers"]), "layer"))
        page.table(
            [*columns, _Column("what it holds", page.rest(columns))],
            (
                (
                    units.size(layer["size_bytes"]),
                    "" if layer["files"] is None else f"{layer['files']:,}",
                    layer["diff_id"],
                    escape.terminal(layer["title"]),
                )
                for layer in document["layers"]
            ),
        )
    if document["verification"] is not None:
        _verification(page, document["verification"], document["id"] is not None)
    if document["done_without"]:
        page.note(f"it passes without {escape.terminal(', '.join(document['done_without']))}", "")
    _observed(page, document["observed"], document["rounds"])
    _security(page, document["security"]["before"], document["security"]["after"])
    for warning in document["warnings"]:
        page.note(f"warning: {escape.line(warning)}", "")
    _told_diagnostics(page, [Diagnostic(**diagnostic) for diagnostic in document["diagnostics"]])
    return page.text()


def verification(document: Mapping[str, Any], width: int = 80, colour: bool = False) -> str:
    """A verification (its dictionary) for people: each check, and below those that fail how they differ."""
    page = _Page(width, colour)
    _verification(page, document)
    return page.text()


def _verification(page: _Page, document: Mapping[str, Any], made: bool = True) -> None:
    checks = document["checks"]
    failed = [check for check in checks if not check["same"]]
    verdict = "the same" if not failed else f"{len(failed)} of {units.count(len(checks), 'check')} failed"
    page.heading("Verified" if not failed else "Not the same", verdict if made else f"{verdict}; not made")
    columns = [_Column("", 4, style="bold")]
    asked = _Column("asked", page.rest(columns, 3), cut="end")
    answers = page.rest([*columns, asked], 2)
    columns += [asked, _Column("original", answers, cut="end"), _Column("slim", answers, cut="end")]
    page.table(
        columns,
        (
            (
                ("ok", "green") if check["same"] else ("FAIL", "red"),
                escape.line(check["probe"]),
                escape.line(_answer(check["original"])),
                escape.line(_answer(check["slim"])),
            )
            for check in checks
        ),
    )
    for check in checks:
        if check["detail"]:
            page.note(f"{escape.line(check['probe'])}: {escape.line(check['detail'])}", "")
    if document["missing"]:
        shown = document["missing"][:TOP_PATHS]
        page.heading("Missing", _of(len(shown), len(document["missing"]), "what only the original opened"))
        for path in shown:
            page.note(escape.terminal(path), "")
    if document["untraced"]:
        known = "there may be more" if document["missing"] else "which files are missing is not known"
        page.note(f"{known}: {escape.line(document['untraced'])}", "")


def _answer(text: str) -> str:
    """An answer in the units of people: ``5242880 bytes`` as ``5.24 MB``."""
    head, _, tail = text.rpartition(", ")
    number = tail.removesuffix(" bytes")
    if number == tail or not number.isdigit():
        return text
    return f"{head}, {units.size(int(number))}" if head else units.size(int(number))


def _observed(page: _Page, observed: Sequence[Mapping[str, Any]], rounds: int) -> None:
    """What is kept only since it was seen in use: each is a rule that static analysis lacks."""
    if not observed:
        return
    shown = observed[:TOP_PATHS]
    tried = f", found in {units.count(rounds, 'more try', 'more tries')}" if rounds else ""
    page.heading(
        "Missed by static analysis", _of(len(shown), len(observed), f"kept since it was observed{tried}")
    )
    path = _Column("path", page.rest([], 2))
    page.table(
        [path, _Column("because", page.rest([path]), cut="end")],
        ((escape.terminal(row["path"]), escape.line(row["reason"])) for row in shown),
    )


def _slim_facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if document["id"] is not None:
        facts.append(("ID", document["id"]))
    if document["output"] is not None:
        stored = (
            units.size(document["totals"]["stored_bytes"]) if document["id"] is not None else "not written"
        )
        facts.append(
            ("file", f"{escape.terminal(document['output'])} ({document['output_format']}, {stored})")
        )
    if document["tag"] is not None:
        facts.append(("name", escape.terminal(document["tag"])))
    if document["rewritten"]:
        facts.append(("changed", escape.terminal(", ".join(document["rewritten"]))))
    return facts


def _security(page: _Page, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Two summaries side by side; what is left is named, since that is what can be looked at."""
    columns = [_Column("before", 7, "right"), _Column("after", 7, "right", "bold"), _Column("of", 16)]
    page.heading("What is left to attack")
    rows = []
    for key, title in (
        ("packages", "packages"),
        ("setuid", "setuid programs"),
        ("shells", "shells"),
        ("package_managers", "package managers"),
    ):
        one, two = before[key], after[key]
        if isinstance(one, int):
            kinds = after["packages_by_ecosystem"]
            left = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            rows.append((f"{one:,}", f"{two:,}", title, left))
        else:
            rows.append((f"{len(one):,}", f"{len(two):,}", title, escape.terminal(", ".join(two))))
    page.table([*columns, _Column("left", page.rest(columns), cut="end")], rows)


def copy_note(size_bytes: int, files: int, reason: str, unneeded_bytes: int = 0) -> str:
    """What the table view says below a COPY line: its bytes and why."""
    along = f", {units.size(unneeded_bytes)} of it only come along" if unneeded_bytes else ""
    return f"{units.size(size_bytes)} in {units.count(files, 'file')}{along}: {reason}"


def _left_behind(page: _Page, dropped: Sequence[Mapping[str, Any]]) -> None:
    if not dropped:
        return
    shown = dropped[:TOP_WASTE]
    columns = [_Column("stays", 7, "right", "bold")]
    path = _Column("path", page.rest(columns, 2) * 4 // 5)
    columns += [path, _Column("because", page.rest([*columns, path]), cut="end")]
    page.heading("Left behind", _of(len(shown), len(dropped), "the largest subtrees"))
    page.table(
        columns,
        (
            (units.size(tree["size_bytes"]), escape.terminal(tree["path"]), escape.line(tree["reason"]))
            for tree in shown
        ),
    )


def _diagnostics(page: _Page, report: Report) -> None:
    _told_diagnostics(page, report.diagnostics)


def _told_diagnostics(page: _Page, diagnostics: Sequence[Diagnostic]) -> None:
    if not diagnostics:
        return
    page.heading("Diagnostics", highlights.diagnostics_count(diagnostics))
    shown = highlights.worst_first(diagnostics)[:TOP_DIAGNOSTICS]
    for diagnostic in shown:
        where = f" ({escape.middle(escape.terminal(diagnostic.path), 60)})" if diagnostic.path else ""
        message = escape.end(escape.line(diagnostic.message), 4 * page.width)
        page.note(f"{diagnostic.severity}: {message}{where}", "")
    _more(page, len(shown), len(diagnostics))


def ls(entries: Iterable[Entry]) -> Iterator[str]:
    """Lines as `ls -l` prints them, without newlines: mode, owner, size, layer, path, link target.

    The first letter of the mode is the type, with ``h`` for hard links (as tar prints them), ``w`` for
    whiteouts and ``o`` for opaque markers. The first line names the columns.
    """
    yield f"{'MODE':<10}  {'UID:GID':>11}  {'SIZE':>7}  LAYER  PATH"
    for entry in entries:
        mode = stat.filemode(_MODE_TYPES.get(entry.type, stat.S_IFREG) | entry.mode & 0o7777)
        mode = _MODE_LETTERS.get(entry.type, mode[0]) + mode[1:]
        path = escape.middle(escape.terminal(entry.path), LONGEST_PATH)
        if entry.link_target is not None:
            path += f" → {escape.middle(escape.terminal(entry.link_target), LONGEST_PATH)}"
        owner = f"{entry.uid}:{entry.gid}"
        yield f"{mode}  {owner:>11}  {units.size(entry.size_bytes):>7}  {entry.layer:>5}  {path}"


def why(explanation: Explained, width: int = 80, colour: bool = False) -> str:
    """What is known of one path, a fact a line."""
    page = _Page(width, colour)
    page.note(escape.terminal(explanation.path), "bold")
    facts = [
        ("type", explanation.type.label),
        ("size", f"{units.size(explanation.size_bytes)} ({units.count(explanation.size_bytes)} bytes)"),
        ("layer", str(explanation.layer)),
        ("instruction", escape.line(explanation.instruction or "(the history does not say)")),
        ("package", escape.terminal(explanation.package or "none")),
        ("category", escape.terminal(explanation.category or "none")),
    ]
    if explanation.verdict:
        facts.append(("verdict", explanation.verdict))
    if explanation.reason:
        facts.append(("because", escape.line(explanation.reason)))
    page.facts(facts)
    for title, edges in (("Needed by", explanation.chain), ("Would be needed by", explanation.would_need)):
        if edges:
            page.heading(title)
            for edge in edges:
                page.note(_edge(edge), "")
    return page.text()


def _edge(edge: Edge) -> str:
    source, target = escape.terminal(edge.source), escape.terminal(edge.target)
    return f"{source} → {target}  {edge.kind}, {edge.certainty}: {escape.line(edge.evidence)}"
