"""Package registries: settings of pip and uv are honoured, the pinned hash decides which file is meant."""

from pathlib import Path

import pytest

from pipelines.core.errors import BadInput
from pipelines.data.package_index import (
    PUBLIC_INDEX,
    IndexSettings,
    Link,
    Page,
    find_files,
    links_of,
    read_settings,
    version_of,
    without_password,
)

INDEX = "https://registry.example/simple"
GOOD, OTHER = "a" * 64, "b" * 64


def html(*anchors: str) -> Page:
    return Page(f"{INDEX}/demo-pkg/", "text/html", "\n".join(anchors).encode())


def test_without_settings_the_public_index_is_asked() -> None:
    assert read_settings({}, []) == IndexSettings((PUBLIC_INDEX,), (), None)


def test_a_variable_beats_a_file_and_files_add_up(tmp_path: Path) -> None:
    one, two = tmp_path / "one.conf", tmp_path / "two.conf"
    one.write_text(
        "[global]\nindex-url = https://old.example/simple\nextra-index-url =\n  https://x.example\n  file:///y\n"
    )
    two.write_text("[global]\nindex-url = https://newer.example/simple\nfind-links = /srv/wheels\n")
    settings = read_settings({"PIP_CERT": "/ca.pem"}, [one, two, tmp_path / "missing.conf"])
    assert settings.indexes == ("https://newer.example/simple", "https://x.example", "file:///y")
    assert settings.find_links == ("/srv/wheels",)
    assert settings.certificate == "/ca.pem"
    assert read_settings({"PIP_INDEX_URL": INDEX}, [one]).indexes[0] == INDEX


def test_settings_of_uv_count_and_a_name_before_the_address_is_dropped() -> None:
    environ = {"UV_DEFAULT_INDEX": f"company={INDEX}", "UV_INDEX": "https://a.example/?x=1 b=https://b.example"}
    assert read_settings(environ, []).indexes == (INDEX, "https://a.example/?x=1", "https://b.example")


def test_no_index_leaves_the_link_folders_only() -> None:
    settings = read_settings({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels"}, [])
    assert settings == IndexSettings((), ("/srv/wheels",), None)


@pytest.mark.parametrize(
    ("filename", "version"),
    [
        ("demo_pkg-1.2.tar.gz", "1.2"),
        ("Demo.Pkg-1.2.zip", "1.2"),
        ("demo_pkg-1.2-py3-none-any.whl", "1.2"),
        ("demo_pkg_more-1.2.tar.gz", None),
        ("demo_pkg-1.2.tar.gz.asc", None),
    ],
)
def test_the_version_is_read_from_the_file_name(filename: str, version: str | None) -> None:
    assert version_of(filename, "demo-pkg") == version


def test_html_and_json_pages_list_the_same_files() -> None:
    expected = [Link("https://registry.example/f/demo_pkg-1.0.tar.gz", "demo_pkg-1.0.tar.gz", GOOD)]
    assert links_of(html(f'<a href="../../f/demo_pkg-1.0.tar.gz#sha256={GOOD}">demo_pkg-1.0.tar.gz</a>')) == expected
    body = f'{{"files": [{{"url": "../../f/demo_pkg-1.0.tar.gz", "hashes": {{"sha256": "{GOOD}"}}}}]}}'
    page = Page(f"{INDEX}/demo-pkg/", "application/vnd.pypi.simple.v1+json", body.encode())
    assert links_of(page) == expected


def test_the_hash_tells_the_sdist_from_the_wheel() -> None:
    page = html(
        f'<a href="demo_pkg-1.0-py3-none-any.whl#sha256={OTHER}">', f'<a href="demo_pkg-1.0.tar.gz#sha256={GOOD}">'
    )
    settings = IndexSettings((INDEX,), (), None)
    [link] = find_files("demo_pkg", "1.0", GOOD, settings, lambda url: page)
    assert link.filename == "demo_pkg-1.0.tar.gz"


def test_files_of_another_version_are_no_match_and_what_is_there_is_named() -> None:
    page = html(f'<a href="demo_pkg-2.0.tar.gz#sha256={GOOD}">', f'<a href="demo_pkg-1.0.tar.gz#sha256={OTHER}">')
    with pytest.raises(BadInput, match=rf"demo_pkg-1.0.tar.gz \(sha256 {OTHER}\)"):
        find_files("demo-pkg", "1.0", GOOD, IndexSettings((INDEX,), (), None), lambda url: page)


def test_a_registry_that_is_away_does_not_hide_another_one() -> None:
    page = html(f'<a href="demo_pkg-1.0.tar.gz#sha256={GOOD}">')

    def read(url: str) -> Page:
        if "away" in url:
            raise BadInput("away can't be reached")
        return page

    settings = IndexSettings(("https://away.example", INDEX), (), None)
    assert len(find_files("demo-pkg", "1.0", GOOD, settings, read)) == 1
    with pytest.raises(BadInput, match="away can't be reached"):
        find_files("demo-pkg", "3.0", GOOD, settings, read)


def test_a_folder_of_links_is_read(tmp_path: Path) -> None:
    (tmp_path / "demo_pkg-1.0.tar.gz").write_bytes(b"x")
    [link] = find_files("demo-pkg", "1.0", GOOD, IndexSettings((), (str(tmp_path),), None), lambda url: None)
    assert link.url == (tmp_path / "demo_pkg-1.0.tar.gz").as_uri()


def test_passwords_are_not_printed() -> None:
    assert without_password("https://me:secret@registry.example/simple") == "https://***@registry.example/simple"
