"""The places as KML, checked against a schema before it is handed out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lxml import etree

from almanac.sun import Place

KML = "{http://www.opengis.net/kml/2.2}"


def document(places: Iterable[Place]) -> bytes:
    root = etree.Element(KML + "kml", nsmap={None: KML.strip("{}")})
    folder = etree.SubElement(root, KML + "Document")
    for place in places:
        mark = etree.SubElement(folder, KML + "Placemark")
        etree.SubElement(mark, KML + "name").text = place.name
        point = etree.SubElement(mark, KML + "Point")
        etree.SubElement(point, KML + "coordinates").text = f"{place.longitude},{place.latitude}"
    schema = etree.RelaxNG(etree.parse(str(Path(__file__).parent / "places.rng")))
    schema.assertValid(root)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)
