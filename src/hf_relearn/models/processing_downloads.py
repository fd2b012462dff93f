"""Fetch a sound, picture or video from an address, within bounds of time, size and place."""

import asyncio
import ipaddress
import socket
import threading
import urllib.request
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from huggingface_hub.utils import httpx

from .processing_sources import MediaError

MAX_DOWNLOAD_BYTES = 100 * 2**20
MAX_REDIRECTS = 10


def is_address(value: object) -> bool:
    """Check whether a value is an `http://` or `https://` address."""
    return isinstance(value, str) and value.lower().startswith(("http://", "https://"))


def download(
    url: str,
    *,
    timeout: float = 30.0,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    allow_private_addresses: bool = False,
) -> bytes:
    """Fetch a file over HTTP or HTTPS into memory; redirects are followed, to such addresses only.

    Args:
        url: the address.
        timeout: seconds that everything may take: names, headers, redirects and the file itself.
        max_bytes: size from which on the file is refused, whatever its headers say.
        allow_private_addresses: whether addresses of this machine and of private networks may be fetched.

    Raises:
        MediaError: if it cannot be fetched, is too large, takes too long or lies in a private network; the message
            begins with the address.
    """
    done: Future[bytes] = Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(_fetch(url, timeout, max_bytes, allow_private_addresses)))
        except BaseException as error:
            done.set_exception(error)

    # A thread of its own, since an event loop may run in this one, and a name server may not answer in time.
    threading.Thread(target=run, daemon=True).start()
    late = f"{url}: the transfer took longer than {timeout:g} seconds (timeout)"
    try:
        return done.result(timeout + 1)
    except (FutureTimeoutError, TimeoutError) as error:
        raise MediaError(late) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{url}: cannot be fetched ({error})") from error


async def _fetch(url: str, timeout: float, max_bytes: int, allow_private: bool) -> bytes:
    # Nothing compressed: a small transfer could become a large file.
    headers = {"Accept-Encoding": "identity"}
    async with httpx.AsyncClient(headers=headers, timeout=None, follow_redirects=False) as client:
        return await asyncio.wait_for(_follow(client, url, max_bytes, allow_private), timeout)


async def _follow(client: Any, url: str, max_bytes: int, allow_private: bool) -> bytes:
    place = httpx.URL(url)
    for _ in range(MAX_REDIRECTS + 1):
        if place.scheme not in ("http", "https") or not place.host:
            raise MediaError(f"{url}: cannot be fetched (it leads to {place}, which is no http or https address)")
        response = await _answer(client, place, url, allow_private)
        try:
            if response.has_redirect_location:  # its body is not read
                place = place.join(response.headers["Location"])
                continue
            return await _body(response, url, max_bytes)
        finally:
            await response.aclose()
    raise MediaError(f"{url}: cannot be fetched (more than {MAX_REDIRECTS} redirects)")


async def _answer(client: Any, place: Any, url: str, allow_private: bool) -> Any:
    """Return the response of an address, whose host is asked under the number that was checked, and no later one."""
    port = place.port or (443 if place.scheme == "https" else 80)
    proxied = place.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(place.host)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(place.host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        if not proxied:
            raise
        found = []  # the proxy knows the name
    numbers = list(dict.fromkeys(str(info[4][0]) for info in found))
    if not allow_private and (private := [number for number in numbers if not _is_public(number)]):
        raise MediaError(
            f"{url}: {place.host} is {private[0]}, an address of this machine or of a private network, which is not "
            "fetched unless allow_private_addresses is set"
        )
    if proxied:
        return await client.send(client.build_request("GET", place), stream=True)
    failure: Exception | None = None
    for number in numbers:
        request = client.build_request(
            "GET",
            place.copy_with(host=number),
            headers={"Host": place.netloc.decode("ascii")},
            extensions={"sni_hostname": place.host},
        )
        try:
            return await client.send(request, stream=True)
        except httpx.ConnectError as error:
            failure = error
    raise failure or OSError("the name has no address")


async def _body(response: Any, url: str, max_bytes: int) -> bytes:
    if response.is_error:
        raise MediaError(f"{url}: the server answered {response.status_code} {response.reason_phrase}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise MediaError(f"{url}: comes compressed, though that was not asked for: fetch it by other means")
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > max_bytes:
            raise MediaError(f"{url}: larger than {max_bytes:,} bytes, the most that is fetched")
    return bytes(content)


def _is_public(number: str) -> bool:
    address = ipaddress.ip_address(number.partition("%")[0])
    inner = [address]
    if isinstance(address, ipaddress.IPv6Address):  # which may carry an address of the older kind
        inner += [each for each in (address.ipv4_mapped, address.sixtofour) if each is not None]
    return all(each.is_global and not each.is_multicast for each in inner)
