import json
import stat

import pytest

from labeling.accounts import ensure_accounts, is_simulated, read_accounts
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
