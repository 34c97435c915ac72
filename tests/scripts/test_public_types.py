"""Unknown types among the public names are found in basedpyright's report."""

from __future__ import annotations

from scripts.public_types import incomplete


def test_unknown_types_are_found() -> None:
    """An exported symbol of unknown type is reported; an inferred one, and one that is not exported, are not."""

    def symbol(name: str, *, exported: bool = True, known: bool = False, ambiguous: bool = False) -> dict[str, object]:
        diagnostics = [{"message": "Return type annotation is missing"}]
        return {
            "name": name,
            "isExported": exported,
            "isTypeKnown": known,
            "isTypeAmbiguous": ambiguous,
            "diagnostics": diagnostics,
        }

    symbols = [
        symbol("bad"),
        symbol("good", known=True),
        symbol("inferred", ambiguous=True),
        symbol("own", exported=False),
    ]
    assert incomplete({"typeCompleteness": {"symbols": symbols}}) == ["bad: Return type annotation is missing"]
