"""Parameters: profiles and overrides resolve, and what is wrong is named with what would be right."""

from pathlib import Path

import pytest

from pipelines.core import config
from pipelines.core.errors import BadInput
from pipelines.core.sections.base import Section

ROOT = Path(__file__).parents[3]


def test_an_override_wins_over_the_profile() -> None:
    values = config.resolve(ROOT, "tiny", ["ppo.steps=7", "ppo.learning_rate=1e-4"])
    assert values["ppo"]["steps"] == 7
    assert values["ppo"]["learning_rate"] == 1e-4
    assert values["profile"] == "tiny"


def test_a_mapping_of_another_kind_replaces_instead_of_mixing() -> None:
    base = {"base_model": {"kind": "package", "package": "a==1", "sha256": "0", "file": "f"}}
    assert config.merge(base, {"base_model": {"kind": "scratch"}}) == {"base_model": {"kind": "scratch"}}
    assert config.merge(base, {"base_model": {"file": "g"}})["base_model"]["package"] == "a==1"


def profiles(root: Path, **files: str) -> Path:
    (root / "profiles").mkdir()
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for name, text in files.items():
        (root / "profiles" / f"{name}.yaml").write_text(text)
    return root


def test_a_profile_lies_over_its_base(tmp_path: Path) -> None:
    root = profiles(
        tmp_path,
        large="profile: large\nppo: {steps: 8, epochs: 9}\n",
        huge="profile: huge\nbase: large\nppo: {steps: 10}\n",
        huger="profile: huger\nbase: huge\nseed: 7\n",
    )
    values = config.resolve(root, "huger", ["ppo.gamma=0.5"])
    assert (values["profile"], values["seed"]) == ("huger", 7)
    assert (values["ppo"]["steps"], values["ppo"]["epochs"], values["ppo"]["gamma"]) == (10, 9, 0.5)


def test_a_base_that_is_missing_or_goes_in_a_circle_is_named(tmp_path: Path) -> None:
    root = profiles(tmp_path, a="base: b\n", b="base: a\n", c="base: d\n")
    with pytest.raises(BadInput, match=r"profiles/b\.yaml: base 'a' goes in a circle: a -> b -> a"):
        config.resolve(root, "a", [])
    with pytest.raises(BadInput, match=r"profiles/c\.yaml: unknown base 'd'; valid: \['a', 'b', 'c'\]"):
        config.resolve(root, "c", [])


@pytest.mark.parametrize(
    ("profile", "override", "named"),
    [
        ("huge", "seed=1", ["huge", "tiny", "smol"]),
        ("tiny", "ppo.stepz=1", ["ppo.stepz", "ppo.steps"]),
        ("tiny", "popo.steps=1", ["popo", "'ppo'"]),
        ("tiny", "ppo.steps=many", ["ppo.steps", "many"]),
        ("tiny", "ppo.steps=-1", ["ppo.steps", "-1"]),
        ("tiny", "ppo.steps", ["ppo.steps", "section.key=value"]),
        ("tiny", "ppo.steps=[1", ["ppo.steps=[1", "YAML"]),
        ("tiny", "sample_completions.completions=9", ["completions", "9"]),
        ("tiny", "align.method=magic", ["align.method", "ppo", "magic"]),
    ],
)
def test_bad_input_is_named_with_what_would_be_valid(profile: str, override: str, named: list[str]) -> None:
    with pytest.raises(BadInput) as raised:
        config.resolve(ROOT, profile, [override])
    for word in named:
        assert word in str(raised.value)


def test_an_unknown_key_in_a_file_fails(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text() + "\nextra: 1\n"
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput, match="extra"):
        config.load_params(tmp_path / "params.yaml")


def test_a_missing_key_fails_since_nothing_has_a_default(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("seed: 1234\n", "")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput, match="seed"):
        config.load_params(tmp_path / "params.yaml")


def test_no_field_of_the_schema_has_a_default() -> None:
    todo: list[type[Section]] = [Section]
    while todo:
        section = todo.pop()
        todo += section.__subclasses__()
        assert all(field.is_required() for field in section.model_fields.values()), section
