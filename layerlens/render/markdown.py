"""Markdown for a pull request's comment or a wiki: GitHub's tables, every name of the image a code span."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from layerlens.render import escape, highlights, units
from layerlens.report import Report

TOP_PATHS = 20
TOP_PACKAGES = 20
TOP_WASTE = 10
TOP_DUPLICATES = 5
LONGEST_NAME = 120
"""Characters of a name or an instruction that a table cell shows."""


def report(report: Report) -> str:
    """The report as one Markdown document, with a newline at its end."""
    image, totals, waste = report.image, report.totals, report.waste
    compressed = totals.compressed_bytes
    lines = [
        f"# Image {_name(image.reference)}",
        "",
        f"- platform {_name(image.platform)}" + (f", id {_name(image.id)}" if image.id else ""),
        f"- {units.size(totals.layer_bytes)} in {units.count(len(report.layers), 'layer')}"
        + ("" if compressed is None else f", {units.size(compressed)} as blobs"),
        f"- {units.size(totals.live_bytes)} live in {units.count(totals.live_files, 'file')}, "
        f"{units.size(totals.shadowed_bytes)} shadowed, {units.size(waste.duplicate_bytes)} in duplicates",
        f"- efficiency {units.ratio(waste.efficiency)} (live / stored bytes), "
        f"{units.ratio(waste.dive_efficiency)} by dive's definition",
    ]
    command = highlights.command_line(image)
    if command:
        lines.append(f"- runs {_name(command)}")
    lines += _section(
        "Layers",
        ("#>", "size>", "share>", "shadowed>", "whose", "instruction"),
        (
            (
                str(layer.index),
                units.size(layer.size_bytes),
                units.share(layer.size_bytes, totals.layer_bytes),
                units.size(layer.shadowed_bytes) if layer.shadowed_bytes else "",
                "base" if layer.from_base else "yours",
                _instruction(layer.instruction),
            )
            for layer in report.layers
        ),
    )
    lines += _section(
        "Categories",
        ("category", "size>", "share>", "files>"),
        (
            (
                escape.terminal(category.name),
                units.size(category.size_bytes),
                units.share(category.size_bytes, totals.live_bytes),
                units.count(category.files),
            )
            for category in report.categories
            if category.files or category.size_bytes
        ),
    )
    lines += _section(
        "Paths",
        ("path", "size>", "category", "package", "layers"),
        (
            (
                _cell(path.path),
                units.size(path.size_bytes),
                escape.terminal(path.category),
                _cell(path.package or ""),
                highlights.layer_list(path.layers),
            )
            for path in report.paths[:TOP_PATHS]
        ),
        len(report.paths),
    )
    largest = sorted(report.packages, key=lambda p: (-p.size_bytes, p.ecosystem, p.name, p.version))
    lines += _section(
        "Packages",
        ("package", "version", "from", "size>", "files>", "layer>"),
        (
            (
                _cell(package.name),
                _cell(package.version),
                _cell(package.ecosystem),
                units.size(package.size_bytes),
                units.count(package.files),
                "" if package.layer is None else str(package.layer),
            )
            for package in largest[:TOP_PACKAGES]
        ),
        len(report.packages),
    )
    lines += _section(
        "Waste",
        ("path", "kind", "size>", "layers", "by instruction"),
        (
            (
                _cell(item.path),
                item.kind,
                units.size(item.size_bytes),
                highlights.hidden_layers(item.layers),
                _instruction(item.instruction),
            )
            for item in waste.items[:TOP_WASTE]
        ),
        len(waste.items),
    )
    groups = sorted(waste.duplicates, key=lambda group: -group.size_bytes * (len(group.paths) - 1))
    lines += _section(
        "Duplicates",
        ("saves>", "copies>", "paths"),
        (
            (
                units.size(group.size_bytes * (len(group.paths) - 1)),
                units.count(len(group.paths)),
                ", ".join(map(_cell, group.paths[:2])) + (" …" if len(group.paths) > 2 else ""),
            )
            for group in groups[:TOP_DUPLICATES]
        ),
        len(groups),
    )
    if report.diagnostics:
        lines += ["", f"Diagnostics: {highlights.diagnostics_count(report.diagnostics)}."]
    step = highlights.next_step(report)
    if step:
        lines += ["", f"Next: {escape.markdown(step[0])} ({step[1]})."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return escape.markdown(escape.middle(escape.terminal(text), LONGEST_NAME), cell=True)


def _name(text: str) -> str:
    return escape.markdown(escape.middle(escape.terminal(text), LONGEST_NAME))


def _instruction(text: str | None) -> str:
    return escape.markdown(escape.end(escape.line(text or ""), LONGEST_NAME), cell=True)


def _section(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], all_rows: int | None = None
) -> list[str]:
    """A heading and a table; headings that end in ``>`` are of numbers. Nothing at all without rows."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    if not body:
        return []
    names = [heading.rstrip(">") for heading in headings]
    rule = ["---:" if heading.endswith(">") else "---" for heading in headings]
    lines = ["", f"## {title}", "", f"| {' | '.join(names)} |", f"| {' | '.join(rule)} |", *body]
    if all_rows is not None and len(body) < all_rows:
        lines += ["", f"{len(body)} of {units.count(all_rows)}, largest first."]
    return lines
