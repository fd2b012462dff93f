"""Fetching a sound, picture or video by its address, within bounds of size and time."""

import time

from huggingface_hub.utils import httpx

from .processing_media import MediaError

MAX_DOWNLOAD_BYTES = 100 * 2**20


def is_address(value: object) -> bool:
    """Whether a value is an `http://` or `https://` address."""
    return isinstance(value, str) and value.lower().startswith(("http://", "https://"))


def download(url: str, *, timeout: float = 30.0, max_bytes: int = MAX_DOWNLOAD_BYTES) -> bytes:
    """Fetch a file over HTTP or HTTPS into memory; redirects are followed, to such addresses only.

    Args:
        url: the address.
        timeout: seconds that the whole transfer may take.
        max_bytes: size from which on the file is refused, whatever its headers say.

    Raises:
        MediaError: if it cannot be fetched, is too large or takes too long; the message begins with the address.
    """
    deadline = time.monotonic() + timeout
    content = bytearray()
    # Nothing compressed: a small transfer could become a large file.
    headers = {"Accept-Encoding": "identity"}
    try:
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
            response.raise_for_status()
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise MediaError(f"{url}: comes compressed, though that was not asked for: fetch it by other means")
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > max_bytes:
                    raise MediaError(f"{url}: larger than {max_bytes:,} bytes, the most that is fetched")
                if time.monotonic() > deadline:
                    raise MediaError(f"{url}: the transfer took longer than {timeout:g} seconds (timeout)")
    except httpx.HTTPStatusError as error:
        status = error.response
        raise MediaError(f"{url}: the server answered {status.status_code} {status.reason_phrase}") from error
    except httpx.TimeoutException as error:
        raise MediaError(f"{url}: no answer within {timeout:g} seconds (timeout)") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MediaError(f"{url}: cannot be fetched ({error})") from error
    return bytes(content)
