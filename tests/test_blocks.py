"""Secrets as Prefect blocks: Prefect's own standards for blocks, and what a run gets from them."""

from urllib.error import URLError

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr

from s2v_tasks.blocks import BLOCKS, DashScopeCredentials, S2VLedger, stored_credentials, stored_ledger
from s2v_tasks.errors import UsageError


class TestBlockStandards(BlockStandardTestSuite):
    """Prefect's tests for the blocks of an integration."""

    @pytest.fixture(params=BLOCKS, ids=lambda block: block.__name__)
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        """Each of ours."""
        return request.param

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's check of the logo itself needs the network; here only that there is one to show."""
        assert str(block._logo_url).startswith("https://")  # noqa: SLF001  (Prefect's name for it)
        try:
            super().test_has_a_valid_image(block)
        except URLError:
            pytest.skip("tests stay on this machine: the logo was not fetched")


async def test_a_stored_account_and_ledger_are_taken_by_name(prefect_api: str) -> None:
    """The block's values reach the client; its secrets show in no representation."""
    credentials = DashScopeCredentials(api_key="sk-of-a-block", http_base_url="http://127.0.0.1:1/api/v1/")
    await credentials.save("taken-by-name", overwrite=True)
    await S2VLedger(url=SecretStr("postgresql://u:pw-of-a-block@h/d")).save("taken-by-name", overwrite=True)
    access = await stored_credentials("taken-by-name")
    assert access is not None
    assert access.base_url == "http://127.0.0.1:1/api/v1"
    assert access.api_key.get_secret_value() == "sk-of-a-block"
    assert await stored_ledger("taken-by-name") == "postgresql://u:pw-of-a-block@h/d"
    loaded = await S2VLedger.load("taken-by-name")
    assert "of-a-block" not in repr((access, credentials, loaded))


async def test_without_a_name_the_environment_counts() -> None:
    """No request is sent to a server."""
    assert await stored_credentials(None) is None
    assert await stored_ledger(None) is None


async def test_a_block_that_is_not_there_is_named(prefect_api: str) -> None:
    """One line, with the way out."""
    with pytest.raises(UsageError, match=r"no S2V Ledger block is named 'none'\. Create one"):
        await stored_ledger("none")
    with pytest.raises(UsageError, match=r"no DashScope Credentials block is named 'none'\. Create one"):
        await stored_credentials("none")
