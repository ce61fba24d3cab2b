import json
import stat

import pytest

from labeling.accounts import checkers, ensure_accounts, ensure_people, is_simulated, read_accounts, read_people
from labeling.client import LabelStudio
from pipelines.core.errors import BadInput


def test_accounts_work_are_private_and_stay_as_they_are(admin, labelers_file):
    before = labelers_file.read_bytes()
    accounts = ensure_accounts(admin, 3, labelers_file)
    assert labelers_file.read_bytes() == before
    assert stat.S_IMODE(labelers_file.stat().st_mode) == 0o600
    assert len({account.password for account in accounts}) == 3
    for account in accounts:
        with LabelStudio(admin.url, account.token) as labeler:
            assert labeler.whoami().email == account.email
        assert is_simulated(account.email)


def test_accounts_whose_passwords_are_lost_are_replaced_by_others(admin, labelers_file, tmp_path):
    known = {account.email for account in read_accounts(labelers_file)}
    fresh = ensure_accounts(admin, 1, tmp_path / "labelers.json")
    assert fresh[0].email not in known


def test_people_are_not_simulated():
    assert not is_simulated("ann@example.org")


def test_a_broken_file_is_bad_input(tmp_path):
    path = tmp_path / "labelers.json"
    path.write_text(json.dumps([{"email": "a@b"}]))
    with pytest.raises(BadInput, match="password"):
        read_accounts(path)


PEOPLE = "email,name,role\nAnn@Example.org,Ann Example,checker\nbob@example.org,Bob,labeler\n"


def test_people_get_accounts_with_roles_and_passwords_of_their_own(admin, tmp_path, monkeypatch):
    listed, kept = tmp_path / "people.csv", tmp_path / "secrets" / "people.json"
    listed.write_text(PEOPLE)
    accounts = ensure_people(admin, read_people(listed), kept)
    assert [(account.email, account.role) for account in accounts] == [
        ("ann@example.org", "checker"),
        ("bob@example.org", "labeler"),
    ]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len({account.password for account in accounts}) == 2
    assert min(len(account.password) for account in accounts) >= 20
    for account in accounts:
        with LabelStudio(admin.url, account.token) as person:
            assert person.whoami().email == account.email

    before = kept.read_bytes()
    ensure_people(admin, read_people(listed), kept)
    assert kept.read_bytes() == before
    listed.write_text(PEOPLE.replace("Bob,labeler", "Bob,checker") + f"{admin.whoami().email},Boss,checker\n")
    accounts = ensure_people(admin, read_people(listed), kept)
    assert accounts[1].role == "checker" and accounts[1].password
    assert accounts[2].password == ""  # the account was there; nobody here knows its password
    monkeypatch.setenv("PEOPLE_FILE", str(kept))
    assert checkers() == {account.email for account in accounts}
    listed.write_text("email,name,role\nbob@example.org,Bob,checker\n")
    ensure_people(admin, read_people(listed), kept)
    assert checkers() == {"bob@example.org"}


def test_without_a_file_of_people_anybody_checks(monkeypatch, tmp_path):
    monkeypatch.delenv("PEOPLE_FILE", raising=False)
    assert checkers() is None
    monkeypatch.setenv("PEOPLE_FILE", str(tmp_path / "people.json"))
    assert checkers() is None


def test_every_wrong_line_of_a_file_of_people_is_named(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE + "eve@example.org,Eve,boss\nnobody,No,labeler\nann@example.org,Ann,labeler\n")
    with pytest.raises(BadInput, match=r"3 wrong lines(.|\n)*line 4: role 'boss'(.|\n)*line 5(.|\n)*line 6: .* twice"):
        read_people(path)
    path.write_text("email,name\n")
    with pytest.raises(BadInput, match=r"lacks the columns \['role'\]"):
        read_people(path)
