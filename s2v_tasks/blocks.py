"""The vendor's account as a Prefect block, taken by name: a secret as a flow parameter is stored in clear."""

from typing import cast

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from s2v_tasks.adapters.dashscope import Access
from s2v_tasks.errors import UsageError
from s2v_tasks.settings import DASHSCOPE_BASE_URL


class DashScopeCredentials(Block):
    """Key, workspace and base URL of a DashScope account (China, Beijing region)."""

    _block_type_name = "DashScope Credentials"
    _block_type_slug = "dashscope-credentials"
    _description = "The account that pays for wan2.2-s2v-detect calls."

    api_key: SecretStr = Field(title="API key", description="A key of the China (Beijing) region.")
    http_base_url: HttpUrl = Field(
        HttpUrl(DASHSCOPE_BASE_URL), title="Base URL", description="Ends in /api/v1; a workspace has its own."
    )
    workspace: str | None = Field(None, title="Workspace", description="Sent as X-DashScope-WorkSpace.")


async def stored_access(name: str | None) -> Access | None:
    """The access that a stored block gives; None without a name: the environment counts.

    Raises:
        UsageError: There is no such block.
    """
    if name is None:
        return None
    try:
        block = cast("DashScopeCredentials", await DashScopeCredentials.aload(name))
    except ValueError:
        raise UsageError(
            f"no DashScope Credentials block is named {name!r}; make one on Prefect's Blocks page"
        ) from None
    return Access(str(block.http_base_url).rstrip("/"), block.api_key, block.workspace)
