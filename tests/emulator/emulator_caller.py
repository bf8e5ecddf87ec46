"""A client of an emulator for the tests of this folder."""

import httpx

from s2v_tasks.emulator import Emulator
from s2v_tasks.models import WAN22_S2V_DETECT

CALL_PATH = WAN22_S2V_DETECT.path


class Caller:
    """Sends calls to an emulator over HTTP; valid ones by default."""

    def __init__(self, emulator: Emulator, client: httpx.Client) -> None:
        self.emulator = emulator
        self.http = client

    def url(self, name: str) -> str:
        """The URL of a sample."""
        return f"{self.emulator.origin}/samples/{name}"

    def send(self, image_url: str, **request: object) -> httpx.Response:
        """Call about an image URL; ``request`` replaces parts of what httpx sends."""
        body = {"model": WAN22_S2V_DETECT.model, "input": {"image_url": image_url}}
        request = {"json": body, "headers": {"Authorization": "Bearer any"}, **request}
        return self.http.post(self.emulator.base_url + CALL_PATH, **request)  # type: ignore[arg-type]

    def send_sample(self, name: str, **request: object) -> httpx.Response:
        """Call about a sample."""
        return self.send(self.url(name), **request)
