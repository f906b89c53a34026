"""Asking a gateway for its models."""

import os
import urllib.error
import urllib.request
from http.client import HTTPException

import orjson

from helexa.clients.offer import KEY_VARIABLE
from helexa.conversation import Json
from helexa.errors import HelexaError

SECONDS = 15.0
MOST_BYTES = 16 << 20


def fetch_models(url: str) -> Json:
    """GET /v1/models, with the key in HELEXA_API_KEY if there is one."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise HelexaError(f"{KEY_VARIABLE} holds characters that no key has.")
    address = f"{url.rstrip('/').removesuffix('/v1')}/v1/models"
    if not address.startswith(("http://", "https://")):
        raise HelexaError(
            f"{url} is not the URL of a gateway: it must begin with http:// or https://"
        )
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(address, headers=headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return orjson.loads(response.read(MOST_BYTES))
    except urllib.error.HTTPError as refused:
        with refused:
            raise HelexaError(
                f"{address} answered {refused.code}: set {KEY_VARIABLE} if it wants a key."
            ) from None
    except (OSError, ValueError, HTTPException) as error:
        why = getattr(error, "reason", error)
        raise HelexaError(
            f"No gateway answers at {address} ({why}): start it with `helexa serve`, or give --url."
        ) from None
