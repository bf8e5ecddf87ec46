"""Prefect blocks for secrets, loaded by name: Prefect stores flow parameters in clear text.

A user who may edit blocks sets the secret; a user who starts a run only names the block.
"""

from typing import Any, TypeVar

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from s2v_tasks.errors import UsageError
from s2v_tasks.settings import DASHSCOPE_BASE_URL, Credentials

_VENDOR_DOCS = HttpUrl("https://www.alibabacloud.com/help/en/model-studio/")
_DATABASE_URLS = HttpUrl("https://docs.sqlalchemy.org/en/21/core/engines.html")
_VENDOR_LOGO = HttpUrl("https://github.com/alibaba.png?size=200")


class DashScopeCredentials(Block):
    """Key, workspace and base URL of a DashScope account (China, Beijing region).

    Example:
        Load stored credentials:

        ```python
        from s2v_tasks.blocks import DashScopeCredentials

        credentials = DashScopeCredentials.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "DashScope Credentials"
    _block_type_slug = "dashscope-credentials"
    _description = "The account that pays for wan2.2-s2v-detect calls."
    _documentation_url = _VENDOR_DOCS
    _logo_url = _VENDOR_LOGO

    api_key: SecretStr = Field(title="API key", description="A key of the China (Beijing) region.")
    http_base_url: HttpUrl = Field(
        HttpUrl(DASHSCOPE_BASE_URL),
        title="Base URL",
        description="Ends in /api/v1; a workspace has its own.",
    )
    workspace: str | None = Field(None, title="Workspace", description="Sent as X-DashScope-WorkSpace.")


class S2VLedger(Block):
    """The ledger's database, by its URL; the ledger records every call.

    Example:
        Load a stored ledger:

        ```python
        from s2v_tasks.blocks import S2VLedger

        ledger = S2VLedger.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "S2V Ledger"
    _block_type_slug = "s2v-ledger"
    _description = "The ledger of paid calls: one for all outputs and machines that share an account."
    _documentation_url = _DATABASE_URLS
    _logo_url = _VENDOR_LOGO

    url: SecretStr = Field(
        title="URL", description="Such as postgresql://user:password@host/database or sqlite:///path."
    )


BLOCKS: tuple[type[Block], ...] = (DashScopeCredentials, S2VLedger)
"""The block types of this package, to be registered with a server."""

B = TypeVar("B", bound=Block)


async def stored_credentials(name: str | None) -> Credentials | None:
    """The credentials of a stored block; None without a name: the environment is used.

    Raises:
        UsageError: The block does not exist.
    """
    if name is None:
        return None
    block = await _stored(DashScopeCredentials, name)
    return Credentials(str(block.http_base_url).rstrip("/"), block.api_key, block.workspace)


async def stored_ledger(name: str | None) -> str | None:
    """The ledger's URL of a stored block; None without a name: parameters and environment are used.

    Raises:
        UsageError: The block does not exist.
    """
    return None if name is None else (await _stored(S2VLedger, name)).url.get_secret_value()


async def _stored(kind: type[B], name: str) -> B:
    try:
        block: Any = await kind.aload(name)
    except ValueError:
        raise UsageError(
            f"no {kind.get_block_type_name()} block is named {name!r}. Create one in the Prefect UI, under"
            " Blocks"
        ) from None
    typed: B = block
    return typed
