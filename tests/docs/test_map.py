"""The map of the package in docs/design.md has every module, and no other."""

from tests.docs.blocks import ROOT, package_map

PACKAGE = ROOT / "expander_sae"


def test_every_module_is_on_the_map_and_no_other():
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    folders = {f"{path.rpartition('/')[0]}/" for path in modules if "/" in path}
    there = {path for path in modules if not path.endswith("__init__.py")} | folders
    on_map = set(package_map())
    assert sorted(there - on_map) == [], "missing on the map"
    assert sorted(on_map - there) == [], "on the map and not there"
